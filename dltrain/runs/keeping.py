"""Keeping: what a training that goes on leaves on the disk, so that it can be continued, and how often.

The state after each epoch is taken at once; it is written, with the table and the result, at most once a second: short
epochs would otherwise wait for the disk most of their time. However a training ends, what was taken is written. Only
SIGKILL, or a crash of the machine, costs epochs, those of the last second, and a resume repeats them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from dltrain.runs.recording import Recordings
from dltrain.runs.run import Run

PAUSE = 1.0
"""Seconds between two writings, at least: a longer epoch has one of its own."""


class Keeper:
    """Writes the states, the table and the result of a run. Use it in a `with` block, whose end writes what is left."""

    def __init__(self, run: Run, recordings: Recordings, result: Callable[[], None]) -> None:
        """result: writes result.json of a training that goes on."""
        self._run, self._recordings, self._result = run, recordings, result
        self._at, self._spent = time.monotonic(), 0.0
        self._has_left = self._has_written = self._goes_on = False

    @property
    def seconds(self) -> float:
        """Since the last state was written, or the `with` block began."""
        return time.monotonic() - self._at

    def take(self, state: Callable[[], dict[str, Any]], *, best: bool = False, now: bool = False) -> float:
        """Take the state that `state` gives, and write it if it is time. best: whether it is the best so far. now: do
        not wait. Returns the seconds that this took."""
        before, started = self._spent, time.perf_counter()
        self._run.hold(state(), best=best)
        self._has_left = True
        self._spent += time.perf_counter() - started
        self.write(now=now)
        return self._spent - before

    def write(self, *, now: bool = False) -> None:
        """Write the states that were taken, if there are any and it is time."""
        started = time.perf_counter()
        if self._has_left and (now or self.seconds > PAUSE):
            self._run.write_held()
            self._at, self._has_left, self._has_written, self._goes_on = time.monotonic(), False, True, not now
        self._spent += time.perf_counter() - started

    def spent(self) -> float:
        """The seconds that states took since this was last asked."""
        spent, self._spent = self._spent, 0.0
        return spent

    def tell(self) -> None:
        """Write the table as well, once the states are written, and the result, unless they could not wait: then the
        training ends, and its last result follows, or it is inside an epoch, where there is no news."""
        if self._has_written:
            self._recordings.write()
            if self._goes_on:
                self._result()
            self._has_written = False

    def finish(self) -> None:
        """Write all that was taken."""
        self.write(now=True)
        self.tell()

    def __enter__(self) -> Keeper:
        self._at = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError) if kind is not None else contextlib.nullcontext():
            self.finish()
