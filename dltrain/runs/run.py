"""Run: the directory of one training. It stores the values it is given and knows nothing of the trainer.

    experiment.yaml  environment.json  result.json  metrics.csv  log.txt  events.out.tfevents.*
    checkpoints/last.pt  checkpoints/best.pt  eval/<split>.json

The table and the event files are those of recorders, which show a run: see `recording`.
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dltrain.errors import RunError
from dltrain.runs import checkpoints
from dltrain.runs.checkpoints import CheckpointError, Packed, write_atomically
from dltrain.runs.names import JOURNAL as JOURNAL
from dltrain.runs.names import STATES as STATES
from dltrain.runs.stored import StoredError, is_result, require_checkpoint, require_environment

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""The errors of a disk, a quota or a limit of this process that is used up."""


@dataclass(frozen=True)
class Failure:
    """Why a training failed. kind: in a word, so that failures can be counted. of_machine: whether the machine failed
    (a full disk, lost memory, a killed process): the same training may succeed another time."""

    kind: str
    why: str
    of_machine: bool = False


class Run:
    """A run directory, `runs/<experiment>/<NNN>`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / ".lock", timeout=0)
        self._held: dict[Path, Packed] = {}
        self.failure: Failure | None = None
        """What ended the training that this process made here, when it failed."""

    # -- finding and making

    @classmethod
    def create(cls, path: Path) -> Run:
        """The run directory `path`, made anew and locked. Raises RunError when it cannot be made."""
        run = cls(path)
        try:
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
            run.lock()
        except OSError as error:
            raise unwritable(error, path) from None
        return run

    @classmethod
    def open(cls, path: str | Path) -> tuple[Run, Path | None]:
        """The run at `path`, or of the checkpoint file at `path`, and that file."""
        path = Path(path)
        if path.is_file() and path.suffix == ".pt":
            return cls(path.parent.parent if path.parent.name == "checkpoints" else path.parent), path
        if (path / JOURNAL).is_file():
            raise RunError(f"{path} is a sweep, not a run; to go on: dltrain sweep {path}\n"
                           f"its runs: {path / 'trials'}; the best setting: {path / 'best.yaml'}")  # fmt: skip
        if (path / "experiment.yaml").is_file():
            return cls(path), None
        if not path.exists():
            raise RunError(f"there is no run or checkpoint at {path}")
        if path.is_file() and path.suffix in (".pt2", ".safetensors"):
            raise RunError(
                f"{path} is not a run: of exported files, .onnx ones are asked; give the run, or one of these"
            )
        numbers = sorted(p for p in path.iterdir() if (p / "experiment.yaml").is_file()) if path.is_dir() else []
        hint = f"; did you mean {numbers[-1]}?" if numbers else ""
        raise RunError(f"{path} is not a run: it has no experiment.yaml{hint}")

    def lock(self) -> None:
        """Take the run for this process. Raises RunError when another process has it."""
        try:
            self._lock.acquire()
        except Timeout:
            raise RunError(f"{self.path} is being trained by another process", "run in use") from None
        except OSError as error:
            raise unwritable(error, self.path) from None
        for folder in (self.path, self.last.parent):
            checkpoints.remove_temporaries(folder)

    def close(self) -> None:
        """Give the run free."""
        self._lock.release()

    # -- checkpoints

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        """The checkpoint with the best validation metric."""
        return self.path / "checkpoints" / "best.pt"

    def hold(self, state: dict[str, Any], *, best: bool = False) -> None:
        """Take the state as it is now for `last`, and for `best` when this is the best. `write_held` writes it."""
        packed = checkpoints.pack(state)
        self._held |= {self.best: packed, self.last: packed} if best else {self.last: packed}

    def write_held(self) -> None:
        """Write what is held, `best` first: a crash in between repeats the epochs since `last`.

        They never share a file: when one is damaged the other is still sound.
        """
        for path in (self.best, self.last):
            if path in self._held:
                checkpoints.write(self._held[path], path)
                del self._held[path]

    def checkpoint(self, which: str) -> tuple[Path, dict[str, Any]]:
        """The checkpoint `best` or `last`. Raises RunError, naming the other one when that is sound."""
        path = self.best if which == "best" else self.last
        if not path.exists():
            raise RunError(f"{self.path} has no {which} checkpoint{self._offer(path)}")
        return self.checkpoint_at(path)

    def checkpoint_at(self, path: Path) -> tuple[Path, dict[str, Any]]:
        """The checkpoint in the file `path`. Raises RunError like `checkpoint`."""
        try:
            state = _as_now(checkpoints.load(path))
            require_checkpoint(state)
        except CheckpointError as error:
            raise RunError(f"{error}{self._offer(path)}") from None
        except StoredError as error:
            raise RunError(f"{path} does not hold what a checkpoint holds: {error}{self._offer(path)}") from None
        if state["average"] is None and state["lookahead"] is not None:  # written before Lookahead's were evaluated
            state["average"] = {**state["model"], **state["lookahead"]}
        return path, state

    def _offer(self, refused: Path) -> str:
        others = [p for p in (self.last, self.best) if p.resolve() != refused.resolve()]
        return "".join(f"\n{p} is sound: give that path instead" for p in others if checkpoints.is_sound(p))

    # -- what a person reads

    def write(self, name: str, content: bytes) -> None:
        """A file in the run directory, replaced atomically."""
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, content)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """A JSON file in the run directory; infinity and not-a-number become null. Names of files that are not UTF-8
        are written with JSON's escapes."""
        strict = json.loads(json.dumps(content), parse_constant=lambda _: None)
        self.write(name, (json.dumps(strict, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON file of the run directory; empty when it is not there, or is a mere report and damaged.

        Raises RunError when environment.json, which decides how a run is continued, is not what is written there.
        """
        path = self.path / name
        try:
            content = json.loads(path.read_bytes())
        except OSError:
            return {}
        except Exception as error:  # by depth, text or numbers: the parser raises many kinds
            content = error
        if name == "environment.json":
            try:
                if isinstance(content, Exception):
                    raise StoredError(f"it is not JSON ({content})"[:200])
                require_environment(content)
            except StoredError as error:
                remedy = "delete it if the run has a checkpoint, which tells the same"
                raise RunError(f"{path} does not hold what dltrain writes there: {error}; {remedy}") from None
        if name == "result.json" and not is_result(content):  # written anew; times begin from 0
            return {}
        return content if isinstance(content, dict) else {}

    def log(self, text: str) -> None:
        """Append to log.txt, if that is possible: a full disk is reported by what matters more."""
        with (
            contextlib.suppress(OSError),
            (self.path / "log.txt").open("a", encoding="utf-8", errors="backslashreplace") as file,
        ):
            file.write(text + "\n")


class ReadOnlyRun(Run):
    """A run as the processes see it that train it together with the one that writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failure = None

    @classmethod
    def create(cls, path: Path) -> Run:
        return cls(path)

    def lock(self) -> None:
        pass

    def close(self) -> None:
        pass

    def hold(self, state: dict[str, Any], *, best: bool = False) -> None:
        pass

    def write_held(self) -> None:
        pass

    def write(self, name: str, content: bytes) -> None:
        pass

    def log(self, text: str) -> None:
        pass


def _as_now(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a checkpoint as it is written now: before there were tasks, it told its classes alone."""
    about = state.get("about")
    if not isinstance(about, dict) or "target" in about or "classes" not in about:
        return state
    rest = {key: value for key, value in about.items() if key != "classes"}
    return {**state, "about": {**rest, "target": {"kind": "classes", "names": about["classes"]}}}


def unwritable(error: OSError, path: Path) -> RunError:
    """What to say when `path` cannot be written."""
    kind = "full disk" if error.errno in FULL else "disk"
    return RunError(f"cannot write to {path}: {(error.strerror or str(error)).lower()}", kind)


def next_free(folder: Path, prefix: str = "") -> Path:
    """Make and return the directory `<folder>/<prefix><NNN>` with the next number that nobody has taken.

    Raises RunError when it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _next_free(folder, prefix)
    except OSError as error:
        raise unwritable(error, folder) from None


def _next_free(folder: Path, prefix: str) -> Path:
    taken = [p.name.removeprefix(prefix) for p in folder.iterdir() if p.name.startswith(prefix)]
    number = max((int(name) for name in taken if name.isascii() and name.isdecimal()), default=0)
    while True:
        number += 1
        path = folder / f"{prefix}{number:03d}"
        try:
            path.mkdir()
        except FileExistsError:  # by another process, just now
            continue
        return path
