"""The workers of a search: this process, or several on this machine. What a worker is asked, and what it answers, is
the same everywhere (`trial`): it is given a leg or the word to go on, and answers with one event.

A worker on this machine is a process of its own, which a server starts that has imported what is needed and does
nothing else: so it starts at once, and shares nothing with this process. It ends when this process does.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from dltrain.data.types import Splits
from dltrain.errors import RunError
from dltrain.experiment.experiment import Experiment
from dltrain.sweeps.serving import serve
from dltrain.sweeps.trial import Events, Leg, Setup, Worker

ORPHAN_SECONDS = 60.0
"""How long a worker may take to end that has lost its coordinator: it does so after the step that it is in."""


@dataclass(frozen=True)
class Lost:
    """A worker has ended without a word. why: what is known of it, such as the signal that ended it."""

    why: str


class Workers(Protocol):
    """Trains legs, as many at once as there are `slots`."""

    slots: int

    def begin(self, slot: int, legs: Sequence[Leg]) -> None:
        """Let a free worker train legs until their first events."""

    def go_on(self, slot: int, park: list[bool]) -> None:
        """Let it train until the next events; park: of each leg, whether it ends instead."""

    def events(self, seconds: float) -> list[tuple[int, Events | Lost]]:
        """What has happened since, after at most so many seconds."""

    def stop(self) -> None:
        """Ask all that train to end after the step that they are in, with a checkpoint; their events still come."""

    def drop(self) -> None:
        """End what trains now, at once."""

    def close(self) -> None:
        """End them."""


class Here:
    """This process: one worker, which trains while `events` is called."""

    slots = 1

    def __init__(self, setup: Setup, experiment: Experiment, splits: Splits) -> None:
        self._worker = Worker(setup, experiment, splits)
        self._next: Callable[[], Events] | None = None

    def begin(self, slot: int, legs: Sequence[Leg]) -> None:
        """See Workers."""
        self._next = partial(self._worker.begin, legs)

    def go_on(self, slot: int, park: list[bool]) -> None:
        """See Workers."""
        self._next = partial(self._worker.go_on, park)

    def events(self, seconds: float) -> list[tuple[int, Events | Lost]]:
        """See Workers."""
        asked, self._next = self._next, None
        return [] if asked is None else [(0, asked())]

    def stop(self) -> None:
        """The signal that this process got has done so."""

    def drop(self) -> None:
        """See Workers."""
        self._next = None
        self._worker.drop()

    def close(self) -> None:
        """Nothing is left to end."""


@dataclass
class _Process:
    process: Any
    pipe: Connection


class Processes:
    """Several processes of this machine. setups: of each."""

    def __init__(self, setups: list[Setup], folder: Path) -> None:
        self.slots, self._setups, self._folder = len(setups), setups, folder
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            self._context.set_forkserver_preload(["dltrain.sweeps.serving"])
        self._running: dict[int, _Process] = {}
        self._silent: set[int] = set()
        """Those that owe an event."""

    def begin(self, slot: int, legs: Sequence[Leg]) -> None:
        """See Workers."""
        if slot not in self._running:
            self._running[slot] = self._start(slot)
        self._send(slot, ("begin", list(legs)))

    def go_on(self, slot: int, park: list[bool]) -> None:
        """See Workers."""
        self._send(slot, ("go_on", park))

    def _send(self, slot: int, word: tuple[str, Any]) -> None:
        self._silent.add(slot)
        with contextlib.suppress(OSError):  # that it is gone is told by `events`
            self._running[slot].pipe.send(word)

    def events(self, seconds: float) -> list[tuple[int, Events | Lost]]:
        """See Workers."""
        pipes = {self._running[slot].pipe: slot for slot in self._silent}
        ready = wait(list(pipes), seconds) if pipes else []
        found: list[tuple[int, Events | Lost]] = []
        for slot in sorted(pipes[pipe] for pipe in ready):  # type: ignore[index]
            self._silent.discard(slot)
            try:
                found.append((slot, self._running[slot].pipe.recv()))
            except (EOFError, OSError):
                found.append((slot, Lost(self._end(slot))))
        return found

    def stop(self) -> None:
        """See Workers."""
        for slot in self._silent:
            with contextlib.suppress(OSError):
                os.kill(self._running[slot].process.pid, signal.SIGTERM)

    def drop(self) -> None:
        """See Workers."""
        for slot in sorted(self._silent):
            self._running[slot].process.kill()
            self._end(slot)
        self._silent.clear()

    def close(self) -> None:
        """See Workers."""
        self.drop()
        for slot in list(self._running):
            self._end(slot)

    def _start(self, slot: int) -> _Process:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=serve, args=(theirs, self._setups[slot], str(_lock(self._folder, slot))), daemon=False
        )
        process.start()
        theirs.close()
        return _Process(process, ours)

    def _end(self, slot: int) -> str:
        """Let a worker go; what ended it."""
        lost = self._running.pop(slot)
        lost.pipe.close()
        lost.process.join(ORPHAN_SECONDS)
        code = lost.process.exitcode
        lost.process.close() if code is not None else lost.process.kill()
        if code is not None and code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"


def _lock(folder: Path, slot: int) -> Path:
    return folder / "workers" / f"{slot}.lock"


def wait_for_orphans(folder: Path) -> None:
    """Until the workers of an earlier coordinator have ended. Raises RunError when they do not."""
    for lock in sorted((folder / "workers").glob("*.lock")):
        try:
            with FileLock(lock, timeout=ORPHAN_SECONDS):
                pass
        except Timeout:
            raise RunError(f"{folder}: a worker of an earlier `dltrain sweep` still trains there") from None
