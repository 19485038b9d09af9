"""Which trials are the best: their order, the front of several objectives, ranking.csv and best.yaml."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dltrain.config.dump import to_yaml
from dltrain.experiment.experiment import Experiment
from dltrain.runs.checkpoints import write_atomically
from dltrain.runs.environment import Hyperparameters
from dltrain.search import Range
from dltrain.sweeps.records import TrialRecord
from dltrain.tasks.metrics import Watched

ORDER = ("finished", "paused", "pruned", "running", "failed")
"""Trials that were trained wholly come first: what the others would have reached is not known."""


def ranked(trials: Iterable[TrialRecord], objectives: Sequence[Watched], repeats: int) -> list[TrialRecord]:
    """The trials that have reached something, the best first, and then those that failed.

    Of several objectives, those of the front come first, then those that would be the front without them, and so on;
    the first objective decides among each. Of equal ones the metric's tie-break decides.
    """
    told = [trial for trial in trials if trial.runs and (trial.metrics is not None or trial.reason is not None)]
    fronts = fronts_of(told, objectives, repeats)

    def order(trial: TrialRecord) -> tuple[Any, ...]:
        metrics, state = trial.metrics, trial.state(repeats)
        if metrics is None:
            return ORDER.index("failed"), 0, 0, (0.0, 0.0), trial.index
        place = min(ORDER.index(state), 1)
        return (
            place,
            fronts.get(trial.index, 0),
            -trial.epochs if place else 0,
            objectives[0].order(metrics),
            trial.index,
        )

    return sorted(told, key=order)


def fronts_of(trials: Sequence[TrialRecord], objectives: Sequence[Watched], repeats: int) -> dict[int, int]:
    """Of each trial that was trained wholly, which front it belongs to: 1 when no other is better in one objective and
    as good in all, 2 when none is but those of the first, ... {} where there is one objective."""
    if len(objectives) == 1:
        return {}
    left = {
        trial.index: tuple(each.cost(metrics) for each in objectives)
        for trial in trials
        if trial.state(repeats) == "finished" and (metrics := trial.metrics) is not None
    }
    found: dict[int, int] = {}
    front = 1
    while left:
        best = [index for index, costs in left.items() if not any(_beats(other, costs) for other in left.values())]
        found |= dict.fromkeys(best, front)
        left = {index: costs for index, costs in left.items() if index not in best}
        front += 1
    return found


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


class Ranking:
    """Writes what a search has found into its directory."""

    def __init__(self, experiment: Experiment, objectives: Sequence[Watched], folder: Path) -> None:
        assert experiment.sweep is not None
        self.experiment, self.sweep, self.objectives, self.folder = experiment, experiment.sweep, objectives, folder
        self._plain, self._dumps = experiment.without_sweep(), dict[int, str]()

    def write(self, trials: Iterable[TrialRecord]) -> list[TrialRecord]:
        """ranking.csv and best.yaml, and of several objectives an experiment of each trial of the front. Returns the
        trials in order."""
        trials = list(trials)
        order = ranked(trials, self.objectives, self.sweep.repeats)
        fronts = self.fronts(order)
        write_atomically(self.folder / "ranking.csv", self._table(order, fronts).encode("utf-8", "backslashreplace"))
        if order and order[0].metrics is not None:
            write_atomically(self.folder / "best.yaml", self._yaml(order[0], "The best", len(order)))
        if fronts:
            (self.folder / "front").mkdir(exist_ok=True)
            first = {f"{trial.index + 1:03d}.yaml": trial for trial in order if fronts.get(trial.index) == 1}
            for name, trial in first.items():
                write_atomically(self.folder / "front" / name, self._yaml(trial, "One of the front", len(order)))
            for file in (self.folder / "front").glob("*.yaml"):
                if file.name not in first:
                    file.unlink()
        return order

    def write_round(self, number: int, ranges: Mapping[str, Range]) -> None:
        """`rounds/<number>.yaml`, from 1: what a narrowed round tries, as `sweep.space` has it."""
        (self.folder / "rounds").mkdir(exist_ok=True)
        values = {key: range_.model_dump(mode="json", exclude_defaults=True) for key, range_ in ranges.items()}
        write_atomically(self.folder / "rounds" / f"{number + 1}.yaml", to_yaml({"space": values}).encode())

    def fronts(self, trials: Sequence[TrialRecord]) -> dict[int, int]:
        """See `fronts_of`."""
        return fronts_of(trials, self.objectives, self.sweep.repeats)

    def text(self, trial: TrialRecord) -> str:
        """What a trial has reached."""
        metrics = trial.metrics or {}
        return "  ".join(each.text(metrics) for each in self.objectives)

    def _yaml(self, trial: TrialRecord, which: str, count: int) -> bytes:
        about = f"# {which} of {count} trials, number {trial.index + 1}: {self.text(trial)}\n"
        if trial.index not in self._dumps:
            self._dumps[trial.index] = self._plain.override_all(trial.values).dump()
        return (about + self._dumps[trial.index]).encode()

    def _table(self, order: Sequence[TrialRecord], fronts: dict[int, int]) -> str:
        task, repeats = self.experiment.resolved_task, self.sweep.repeats
        tags = [each.tag for each in self.objectives]
        measured = [f"validation/{metric.name}" for metric in task.ranking()]
        columns = list(dict.fromkeys((*tags, *measured, "epoch")))
        spread = [f"{tag} {what}" for tag in tags for what in ("deviation", "interval")] if repeats > 1 else []
        front = ["front"] if fronts else []
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        head = ["rank", "trial", "state", *front, *columns, *spread, *self.sweep.space, "epochs"]
        writer.writerow([*head, "seconds", "run", "reason"])
        for rank, trial in enumerate(order, 1):
            metrics = trial.metrics or {}
            row: list[Any] = [rank, trial.index + 1, trial.state(repeats)]
            row += [fronts.get(trial.index)] if fronts else []
            row += [metrics.get(column) for column in columns]
            row += [each for tag in tags for each in spread_of(trial, tag)] if repeats > 1 else []
            row += [value_text(trial.values[key]) if key in trial.values else None for key in self.sweep.space]
            run = trial_folder(self.folder, trial.index).relative_to(self.folder)
            writer.writerow([*row, trial.epochs, round(trial.seconds, 3), run.as_posix(), trial.reason])
        return text.getvalue()


def told(folder: Path) -> list[dict[str, Any]]:
    """The rows of a search's ranking.csv as plain values, the best first; what stands there as JSON is read as such."""
    with (folder / "ranking.csv").open(encoding="utf-8", newline="") as file:
        return [{key: _value(text) for key, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def spread_of(trial: TrialRecord, tag: str) -> tuple[float | None, float | None]:
    """The deviation of a metric over the seeds of a trial, and half of the 95 % interval of its mean (Student's t);
    None with one seed."""
    import statistics

    from scipy import stats

    values = [run.metrics[tag] for run in trial.runs.values() if run.metrics is not None and tag in run.metrics]
    if len(values) < 2:
        return None, None
    deviation = statistics.stdev(values)
    return deviation, float(stats.t.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5


def trial_folder(folder: Path, trial: int) -> Path:
    """Where the runs of a trial lie."""
    return folder / "trials" / f"{trial + 1:03d}"


def run_folder(folder: Path, trial: int, run: int, repeats: int) -> Path:
    """The run directory of one of its seeds."""
    place = trial_folder(folder, trial)
    return place if repeats == 1 else place / f"seed-{run + 1}"


def plain(values: dict[str, Any]) -> Hyperparameters:
    """What recorders show of a trial."""
    return {key: v if isinstance(v, (str, int, float)) else value_text(v) for key, v in values.items()}


def value_text(value: Any) -> str:
    """A value as ranking.csv shows it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
