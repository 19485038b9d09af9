"""`sweep --finish N`: the best settings trained at full length, and each measured on the test split, once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dltrain.commands.evaluate import measure_runs
from dltrain.console.display import Display
from dltrain.errors import RunError
from dltrain.sweeps.ranking import plain
from dltrain.sweeps.records import TrialRecord
from dltrain.sweeps.trial import Began, Ended, Leg, Reached
from dltrain.sweeps.workers import Lost, Workers
from dltrain.tasks.metrics import Metric


class Finish:
    """Trains the best settings of a search. path: of the search. metrics: that the test split is measured by. device:
    that measures."""

    def __init__(self, path: Path, metrics: Sequence[Metric], workers: Workers, device: str, display: Display) -> None:
        self.path, self.metrics, self.workers = path, metrics, workers
        self.device, self.display = device, display

    def run(self, best: list[TrialRecord], tried: int) -> int:
        """Train what is not trained yet, measure what is not measured yet, and say what it came to; the exit code.

        tried: how many settings the best were chosen from.
        """
        legs = [Leg(t.index, 0, self.folder(t), t.values, plain(t.values)) for t in best]
        waiting, busy = [leg for leg in legs if not _is_finished(leg.folder)], dict[int, Leg]()
        self.display.line(f"the best {len(best)} of {tried} settings, trained at full length -> {self.path / 'finish'}")
        while waiting or busy:
            for slot in range(self.workers.slots):
                if waiting and slot not in busy:
                    busy[slot] = waiting.pop(0)
                    self.workers.begin(slot, [busy[slot]])
            for slot, events in self.workers.events(0.2):
                event = events if isinstance(events, Lost) else events[0]
                if isinstance(event, (Began, Reached)):
                    self.workers.go_on(slot, [False])
                    continue
                leg = busy.pop(slot)
                if isinstance(event, Ended) and event.code >= 128:
                    return event.code
                if not (isinstance(event, Ended) and event.finished):
                    failure = event.failure if isinstance(event, Ended) else None
                    why = event.why if isinstance(event, Lost) else failure.why if failure is not None else "it failed"
                    self.display.error(f"trial {leg.trial + 1} at full length: {why}")
                    return 1
        for trial in best:
            self._measure(trial)
        self.display.line(
            f"test data took no part in the choice; the best of {tried} settings on validation data looks better there "
            "than it is: the test score is the honest one"
        )
        return 0

    def folder(self, trial: TrialRecord) -> Path:
        """The run directory of a setting at full length."""
        return self.path / "finish" / f"{trial.index + 1:03d}"

    def _measure(self, trial: TrialRecord) -> None:
        """Measure a setting on test data, unless it was."""
        folder = self.folder(trial)
        known = _json(folder / "eval" / "test.json")
        if not known:
            try:
                known = measure_runs([str(folder)], "test", "best", self.device, Display(quiet=True))[-1].result
            except RunError as error:
                self.display.warning(f"trial {trial.index + 1}: {error}")
                return
        text = "  ".join(metric.text(known[metric.name]) for metric in self.metrics if metric.name in known)
        self.display.line(f"trial {trial.index + 1}  test  {text}  {folder}")


def _is_finished(folder: Path) -> bool:
    return _json(folder / "result.json").get("state") == "finished"


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
