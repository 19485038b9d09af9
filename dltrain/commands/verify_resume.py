"""`verify-resume`: does a training that is killed and resumed give the same bits as one that is not, on this machine?

    one child process:  fit to the end                                          -> a run
    some others:        fit, SIGKILL; resume, SIGKILL; ...; resume to the end   -> another run
    both:               weights, averages, optimizer, tables                    -> a verdict

The training is a short copy of the experiment, in a folder that is deleted. Run as a program, this module is such
a child.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dltrain.console.display import Display
from dltrain.errors import RunError
from dltrain.runs import checkpoints
from dltrain.runs.recorders.csv import read_table
from dltrain.runs.run import Run

if TYPE_CHECKING:
    from dltrain.experiment.experiment import Experiment
    from dltrain.runs.reports import EpochReport, Progress

EPOCHS = 3
SHOWN = 5
"""Differences in the verdict, at most."""
OF_TIME = ("seconds/", "throughput/")
"""What the tags begin with that no two trainings share."""
CHECKPOINTS = ("last", "best")
TAIL = 1500
"""Characters of what a child said when it failed."""


@dataclass(frozen=True)
class Verdict:
    """What the comparison says."""

    steps: int
    kills: list[int]
    """After which steps the training was killed."""
    tensors: int
    """How many were compared, in all checkpoints."""
    rows: int
    """Of metrics.csv."""
    differences: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


def verify(
    experiment: Experiment, device: str, steps: int, kills: int, display: Display, *, plugins: Sequence[str] = ()
) -> Verdict:
    """Train a copy of about so many steps twice, and compare.

    kills: how often the second training is killed, evenly spread. Raises RunError when one of the trainings fails.
    """
    with tempfile.TemporaryDirectory(prefix="dltrain-verify-") as name:
        folder = Path(name)
        file = folder / f"{experiment.name}.yaml"
        file.write_text(shortened(experiment, steps).dump(), encoding="utf-8")

        def child(runs: str, kill: int | None = None, resumed: str | None = None) -> str | None:
            return _child(str(file), folder / runs, device, plugins, kill, resumed)

        display.waiting("training without an interruption")
        whole = Run(Path(child("whole") or ""))
        done = int(whole.read_json("result.json")["step"])
        moments = sorted({max(done * (number + 1) // (kills + 1), 1) for number in range(kills)})
        path: str | None = None
        for moment in (*moments, None):
            what = f"killing it in step {moment} of {done}" if moment is not None else "resuming it to the end"
            display.waiting(what)
            path = child("killed", moment, path) or _begun(folder / "killed")
        display.stop()
        assert path is not None
        return compared(whole.path, Path(path), done, moments)


def shortened(experiment: Experiment, steps: int) -> Experiment:
    """The experiment with three epochs of a third of the steps each, that saves after every step and shows nothing."""
    limit = max(steps // EPOCHS, 2)
    if experiment.training.limit_batches is not None:
        limit = min(limit, experiment.training.limit_batches)
    changes: dict[str, Any] = {
        "training.epochs": EPOCHS, "training.limit_batches": limit, "training.checkpoint_every": 1e-9, "recorders": [],
    }  # fmt: skip
    if experiment.training.threads == "probe":
        changes["training.threads"] = "auto"  # two measurements may choose differently
    return experiment.override_all(changes)


def _begun(runs: Path) -> str | None:
    """The run that a killed training has begun, if it had got so far."""
    found = sorted(runs.glob("*/*/checkpoints/last.pt"))
    return str(found[-1].parent.parent) if found else None


def _child(
    file: str, runs: Path, device: str, plugins: Sequence[str], kill: int | None, resumed: str | None
) -> str | None:
    """The run of a training in a process of its own; None where it was killed. Raises RunError when it fails."""
    asked = {
        "file": file, "runs": str(runs), "device": device, "plugins": list(plugins), "kill": kill, "resumed": resumed,
    }  # fmt: skip
    command = [sys.executable, "-m", "dltrain.commands.verify_resume", json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if kill is not None and done.returncode == -signal.SIGKILL:
        return None
    if done.returncode != 0:
        raise RunError(f"the training failed by itself (exit code {done.returncode}):\n{done.stderr[-TAIL:].strip()}")
    return done.stdout.strip().splitlines()[-1]


def compared(whole: Path, killed: Path, steps: int, kills: list[int]) -> Verdict:
    """Two runs, the second of which was killed and resumed."""
    found: list[str] = []
    tensors = 0
    for which in CHECKPOINTS:
        paths = [run / "checkpoints" / f"{which}.pt" for run in (whole, killed)]
        if not paths[0].exists() and not paths[1].exists():
            continue
        one, other = (checkpoints.load(path) for path in paths)
        for state in (one, other):
            state.pop("epoch_seconds"), state["about"].pop("experiment")
        tensors += sum(1 for _ in _tensors(one))
        found += differences(one, other, f"{which}.pt")
    rows = [[_without_times(row) for row in read_table(run)] for run in (whole, killed)]
    if len(rows[0]) != len(rows[1]):
        found.append(f"metrics.csv: {len(rows[0])} rows and {len(rows[1])}")
    for number, (left, right) in enumerate(zip(*rows, strict=False), 1):
        found += differences(left, right, f"metrics.csv: row {number}")
    return Verdict(steps, kills, tensors, len(rows[0]), found)


def differences(one: Any, other: Any, where: str) -> Iterator[str]:
    """Where nested values are not equal bit for bit, and by how much; times are left out."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.dtype != other.dtype or one.shape != other.shape:
            yield f"{where}: {tuple(one.shape)} {one.dtype} and {tuple(other.shape)} {other.dtype}"
        elif not torch.equal(one, other):
            apart = (one.double() - other.double()).abs().max()
            yield f"{where}: up to {float(apart):.3g} apart"
    elif isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in {**one, **other}:
            if str(key).startswith(OF_TIME):
                continue
            if key not in one or key not in other:
                yield f"{where}.{key}: only in {'one' if key in one else 'the other'}"
            else:
                yield from differences(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from differences(left, right, f"{where}.{number}")
    elif one != other and not (_is_none(one) and _is_none(other)):
        yield f"{where}: {str(one)[:60]} and {str(other)[:60]}"


def _is_none(value: Any) -> bool:
    """Whether it is not a number."""
    return isinstance(value, float) and math.isnan(value)


def _without_times(row: Mapping[str, float]) -> dict[str, float]:
    return {tag: value for tag, value in row.items() if not tag.startswith(OF_TIME)}


def _tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    for inner in state.values() if isinstance(state, Mapping) else state if isinstance(state, (list, tuple)) else ():
        yield from _tensors(inner)


def told(verdict: Verdict) -> str:
    """The verdict in words."""
    kills = ", ".join(map(str, verdict.kills))
    lines = [f"{verdict.steps} steps, once through and once killed after {kills} and resumed each time"]
    if verdict.same:
        lines.append(
            f"the same, bit for bit: {verdict.tensors} tensors of the checkpoints, {verdict.rows} rows of metrics.csv"
        )
        return "\n".join(lines)
    more = len(verdict.differences) - SHOWN
    lines += [
        f"DIFFERENT in {len(verdict.differences)} places:",
        *(f"  {each}" for each in verdict.differences[:SHOWN]),
    ]
    lines += [f"  and {more} more"] if more > 0 else []
    lines.append("a layer or a plug-in keeps something that is no buffer, or draws from numbers of its own")
    return "\n".join(lines)


def to_dict(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain values."""
    return {
        "same": verdict.same, "steps": verdict.steps, "kills": verdict.kills, "tensors": verdict.tensors,
        "rows": verdict.rows, "differences": verdict.differences,
    }  # fmt: skip


class Fatal(Display):
    """Kills its own process when a training is told to have come to a step."""

    seconds = 0.0

    def __init__(self, kill: int | None) -> None:
        super().__init__()
        self._kill = kill

    def progress(self, event: Progress, *_: Any, **__: Any) -> None:
        self._look(event.step)

    def epoch(self, event: EpochReport, *_: Any, **__: Any) -> None:
        self._look(event.step)

    def _look(self, step: int) -> None:
        if self._kill is not None and step >= self._kill:
            os.kill(os.getpid(), signal.SIGKILL)


def main(asked: Mapping[str, Any]) -> int:
    """Be the child: print the run's path."""
    from dltrain.commands.fit import fit, resume
    from dltrain.commands.request import load_plugins
    from dltrain.experiment.experiment import Experiment

    plugins = load_plugins([Path(path) for path in asked["plugins"]])
    display = Fatal(asked["kill"])
    if asked["resumed"] is not None:
        code, run = resume(asked["resumed"], asked["device"], display, plugins=plugins)
    else:
        experiment = Experiment.load(Path(asked["file"]))
        code, run = fit(experiment, None, asked["device"], display, runs=Path(asked["runs"]), plugins=plugins)
    print(run.path)
    return code


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
