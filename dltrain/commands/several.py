"""A folder of trainings that are one result: one experiment with several seeds, or each fold of a cross-validation.

several.json  base.yaml  summary.json  [out-of-fold.csv]  eval/<split>.json
seed-0/  seed-1/ ...   or   fold-1/  fold-2/ ...         each an ordinary run, whose own experiment.yaml repeats it
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dltrain.commands.compare_forms import Side
from dltrain.commands.evaluate import Measured
from dltrain.errors import RunError
from dltrain.evidence.examples import ExampleTable, pooled
from dltrain.evidence.intervals import LEVEL, of_mean
from dltrain.experiment.experiment import Experiment
from dltrain.runs.run import Run
from dltrain.tasks.metrics import Metric

ABOUT, BASE, SUMMARY, OUT_OF_FOLD = "several.json", "base.yaml", "summary.json", "out-of-fold"
Kind = Literal["seeds", "folds"]


@dataclass(frozen=True)
class Member:
    """One of the runs. name: of its folder. values: what it changes of the experiment, by dotted key."""

    name: str
    path: Path
    values: dict[str, Any]

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to train."""
        return Run(self.path).read_json("result.json").get("state") == "finished"


@dataclass(frozen=True)
class Several:
    """The folder. kind: what its runs differ in. count: how many there are to be. device: that was asked for."""

    path: Path
    kind: Kind
    count: int
    device: str

    @property
    def experiment(self) -> Experiment:
        """What the runs have in common."""
        return Experiment.load(self.path / BASE)

    def members(self, experiment: Experiment) -> list[Member]:
        """All runs, those that are not begun among them, in their order."""
        if self.kind == "seeds":
            seeds = range(experiment.seed, experiment.seed + self.count)
            return [Member(f"seed-{seed}", self.path / f"seed-{seed}", {"seed": seed}) for seed in seeds]
        return [
            Member(f"fold-{number}", self.path / f"fold-{number}", {"data.fold": {"number": number, "of": self.count}})
            for number in range(1, self.count + 1)
        ]

    def finished(self) -> list[Member]:
        """The runs that can be asked. Raises RunError when there is none."""
        found = [member for member in self.members(self.experiment) if member.is_finished]
        if not found:
            raise RunError(f"{self.path} has no finished run; to go on: dltrain resume {self.path}")
        return found

    def require_whole(self) -> list[Member]:
        """The same, when they are all. Raises RunError else."""
        found = self.finished()
        if len(found) < self.count:
            some = f"{len(found)} of {self.count} {self.kind} are finished"
            raise RunError(f"{self.path}: {some}; to go on: dltrain resume {self.path}")
        return found


def several_at(path: str | Path) -> Several | None:
    """The folder of several trainings at a path; None where there is something else.

    Raises RunError when it does not hold what is written there.
    """
    folder = Path(path)
    if not (folder / ABOUT).is_file():
        return None
    about = Run(folder).read_json(ABOUT)
    kind, count, device = (about.get(key) for key in ("kind", "count", "device"))
    if kind not in ("seeds", "folds") or not isinstance(count, int) or count < 2 or not isinstance(device, str):
        raise RunError(f"{folder / ABOUT} does not hold what dltrain writes there")
    return Several(folder, kind, count, device)


def each_run(paths: Iterable[str]) -> list[str]:
    """The paths, with the finished runs of a folder in its place. Raises RunError where it has none."""
    found: list[str] = []
    for path in paths:
        several = several_at(path)
        found += [path] if several is None else [str(member.path) for member in several.finished()]
    return found


def over(results: Sequence[Mapping[str, Any]], metrics: Sequence[Metric]) -> dict[str, dict[str, float]]:
    """Mean, standard deviation (of a sample) and Student's interval of each metric over runs, by name. A metric that a
    run does not have is left out."""
    found = {}
    for name in (metric.name for metric in metrics):
        values = [result.get(name) for result in results]
        numbers = [float(value) for value in values if isinstance(value, (int, float))]
        if len(numbers) < len(values):
            continue
        interval = of_mean(numbers)
        deviation = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else float("nan")
        found[name] = {
            "mean": float(np.mean(numbers)), "deviation": deviation, "low": interval.low, "high": interval.high
        }  # fmt: skip
    return found


def over_in_words(kind: Kind, count: int, told: Mapping[str, Mapping[str, float]], metrics: Sequence[Metric]) -> str:
    """The same in a line."""
    parts = []
    for metric in metrics:
        if metric.name in told:
            mean, low, high = (f"{told[metric.name][key]:{metric.format}}" for key in ("mean", "low", "high"))
            parts.append(f"{metric.name} {mean} ({low} to {high})")
    return f"mean over {count} {kind}, {LEVEL:.0%}: {', '.join(parts)}"


# -- folds as one measurement


def out_of_fold(members: Sequence[Member], measured: Sequence[Measured]) -> ExampleTable | None:
    """Every example as the run answers that was not trained on it, in the order of the folds; None where that were too
    much. measured: each run's on its own validation split."""
    tables = {member.name: each.table for member, each in zip(members, measured, strict=True)}
    whole = {name: table for name, table in tables.items() if table is not None}
    return pooled(whole, "fold") if len(whole) == len(tables) else None


def pooled_metrics(table: ExampleTable) -> dict[str, float]:
    """The task's metrics of all examples of a table together, those that single examples tell."""
    once = np.ones((1, len(table)))
    return {name: float(measure(once)[0]) for name, measure in table.measures.items()}


def together_digest(digests: Iterable[str]) -> str:
    """What the examples of several splits, one after another, are known by. digests: of each."""
    return hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest()


def pooled_side(several: Several, letter: str, members: Sequence[Member], sides: Sequence[Side]) -> Side:
    """The folds as one run, for `compare`. sides: the runs on their own validation splits.

    Raises RunError when they are not of the same data.
    """
    marks = {side.about.get("data_fingerprint") for side in sides}
    if len(marks) > 1:
        raise RunError(f"the runs in {several.path} were measured on different data")
    table = pooled({member.name: side.table for member, side in zip(members, sides, strict=True)}, "fold")
    digest = together_digest(side.digest for side in sides)
    about = {
        "checkpoint": f"best of each of {len(members)} folds", "step": [side.about.get("step") for side in sides],
        "data_fingerprint": marks.pop(), **pooled_metrics(table),
    }  # fmt: skip
    return Side(str(several.path), letter, sides[0].experiment, about, table, digest, len(sides))
