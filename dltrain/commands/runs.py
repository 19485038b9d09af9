"""`runs`: a table of the runs and sweeps in a folder, from what their directories hold; nothing is changed."""

from __future__ import annotations

import csv
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from dltrain.console.streams import print_result
from dltrain.errors import RunError
from dltrain.runs.names import JOURNAL, STATES
from dltrain.tasks.base import Task
from dltrain.tasks.impl.tables import aligned
from dltrain.tasks.metrics import Metric

EXPERIMENT, RESULT, ENVIRONMENT, RANKING = "experiment.yaml", "result.json", "environment.json", "ranking.csv"
PLACES = ("rank", "trial", "state", "front")
"""The columns of a ranking before its metrics."""
LONGEST = 200
"""Terminal cells of a path, so that it can be copied."""
STOPPED = "stopped"
"""The state of a run that says that it is running, and that no process holds."""
Order = Literal["began", "best", "seconds", "name"]


@dataclass(frozen=True)
class Line:
    """A run, or a sweep with all its trials. metric: the tag of the one that decides; best: its best value, in `epoch`.
    began: when, in ISO 8601. seconds: of training; of a sweep the sum of its trials'. trials: how many came to an end
    in which way; None of a run."""

    path: str
    state: str
    metric: str | None = None
    best: float | None = None
    epoch: int | None = None
    began: str | None = None
    seconds: float | None = None
    trials: Mapping[str, int] | None = None

    @property
    def measured(self) -> Metric | None:
        """The metric that decides, where a task has it."""
        name = (self.metric or "").partition("/")[2]
        tasks = (task for task in Task.catalogue if issubclass(task, Task))
        return next((metric for task in tasks for metric in task.metrics if metric.name == name), None)

    def order(self, by: Order) -> tuple[Any, ...]:
        """By which the table is sorted; what is not known comes last."""
        known = self.best is not None and not math.isnan(self.best)
        cost = (self.best or 0.0) * (-1 if self.measured is not None and self.measured.direction == "max" else 1)
        return {
            "began": (self.began is None, self.began or ""), "seconds": (self.seconds is None, self.seconds or 0.0),
            "best": (not known, self.metric or "", cost), "name": (),
        }[by] + (self.path,)  # fmt: skip


def show_runs(folder: Path, by: Order, *, as_json: bool) -> list[Line]:
    """Print the runs below a folder as a table, or as JSON. Raises RunError when there is none."""
    if not folder.is_dir():
        raise RunError(f"there is no folder {folder}")
    found = sorted(lines_in(folder), key=lambda line: line.order(by))
    if not found:
        raise RunError(f"there is no run in {folder}; to make one: dltrain fit EXPERIMENT.yaml --runs {folder}")
    if as_json:
        print_result(json.dumps([asdict(line) for line in found], ensure_ascii=False))
    else:
        titles = ["run", "state", "best", "epoch", "began", "took"]
        print_result("\n".join(aligned(titles, [_cells(line) for line in found], widest=LONGEST)))
    return found


def lines_in(folder: Path) -> Iterator[Line]:
    """Every run and every sweep below a folder; the trials of a sweep are told in its line."""
    for path, folders, files in os.walk(folder):
        if EXPERIMENT in files:
            folders.clear()
            yield _sweep(Path(path)) if JOURNAL in files else _run(Path(path))
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _run(path: Path) -> Line:
    result, facts = _object(path / RESULT), _object(path / ENVIRONMENT)
    state, metric, best = result.get("state"), result.get("best_metric"), result.get("best")
    state = state if state in STATES else "unknown"
    if state == "running" and not _is_held(path):
        state = STOPPED
    metric = metric if isinstance(metric, str) else None
    row = best if isinstance(best, dict) else {}
    began = facts.get("started")
    return Line(
        str(path), state, metric, _number(row.get(metric)), _whole(result.get("best_epoch")),
        began if isinstance(began, str) else None, _number(result.get("seconds")),
    )  # fmt: skip


def _sweep(path: Path) -> Line:
    """By its ranking, whose first row is the best trial; by its trials where nothing is ranked yet."""
    trials = [_run(each.parent) for each in sorted((path / "trials").glob(f"**/{EXPERIMENT}"))]
    counts = Counter(trial.state for trial in trials)
    began = min((trial.began for trial in trials if trial.began is not None), default=None)
    took = [trial.seconds for trial in trials if trial.seconds is not None]
    first = _first_row(path / RANKING)
    metric = next((column for column in first if column not in PLACES), None)
    parked = counts["interrupted"] or counts[STOPPED]
    state = "running" if counts["running"] or _is_held(path) else "interrupted" if parked else "finished"
    return Line(
        str(path), state, metric, _number(first.get(metric or "")), _whole(first.get("epoch")), began,
        round(math.fsum(took), 3) if took else None, dict(counts),
    )  # fmt: skip


def _cells(line: Line) -> Sequence[str]:
    metric = line.measured
    best = "-" if line.best is None else f"{line.metric} {line.best:{metric.format if metric is not None else '.5g'}}"
    state = line.state
    if line.trials is not None:
        state = f"sweep: {', '.join(f'{count} {name}' for name, count in sorted(line.trials.items())) or 'no trials'}"
    began = "-" if line.began is None else line.began[:16].replace("T", " ")
    took = "-" if line.seconds is None else str(timedelta(seconds=round(line.seconds)))
    return [line.path, state, best, "-" if line.epoch is None else str(line.epoch), began, took]


def _is_held(path: Path) -> bool:
    """Whether a process trains there: it holds the directory's lock."""
    file = path / ".lock"
    if not file.exists():
        return False
    try:
        with FileLock(file, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # of somebody else: as it says itself
        return True


def _object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is not there or damaged."""
    try:
        content = json.loads(path.read_bytes())
    except Exception:  # by depth, text or numbers: the parser raises many kinds
        return {}
    return content if isinstance(content, dict) else {}


def _first_row(path: Path) -> dict[str, str]:
    """Of a table, by column; empty where there is none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {key: value or "" for key, value in next(csv.DictReader(file), {}).items() if key is not None}
    except (OSError, csv.Error, UnicodeDecodeError):
        return {}


def _number(value: Any) -> float | None:
    """A finite number, or the text of one."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
