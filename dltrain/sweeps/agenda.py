"""What is to be trained next: a function of the trials so far, of what trains now, and of nothing else.

1. runs that were begun and cut short        3. further seeds of trials that came to their end
2. paused trials that the pruner promotes    4. a new trial
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from dltrain.search import Setting, Sweep
from dltrain.search.judging import Judge
from dltrain.sweeps.records import TrialRecord
from dltrain.sweeps.study import Study

Place = tuple[int, int]
"""A trial and one of its runs, each from 0."""


@dataclass(frozen=True)
class New:
    """A trial that is not begun yet."""

    index: int
    setting: Setting


class Agenda:
    """Says what comes next. judge: of the pruner, where there is one."""

    def __init__(self, sweep: Sweep, study: Study, judge: Judge | None) -> None:
        self.sweep, self.study, self.judge = sweep, study, judge
        self.most = min(sweep.most_trials, sweep.size() or sweep.most_trials)
        """Trials, at most."""

    def next(self, busy: Container[Place]) -> Place | New | None:
        """What a free worker trains; None when there is nothing for it now. busy: what the others train."""
        trials = [self.study.trials[index] for index in sorted(self.study.trials) if index < self.most]
        for trial in trials:
            if (run := self._cut_short(trial)) is not None and (trial.index, run) not in busy:
                return trial.index, run
        if (promoted := self.promoted(trials, busy)) is not None:
            return promoted, 0
        for trial in trials:
            for run in range(1, self.sweep.repeats) if self._deserves_more(trial) else ():
                if run not in trial.runs and (trial.index, run) not in busy:
                    return trial.index, run
        return self._new(trials, busy)

    @property
    def left(self) -> int:
        """Trials that are not at their end, and are none that may stay paused."""
        done = ("finished", "pruned", "failed", "paused")
        states = [trial.state(self.sweep.repeats) for index, trial in self.study.trials.items() if index < self.most]
        return self.most - sum(state in done for state in states)

    def _cut_short(self, trial: TrialRecord) -> int | None:
        """The first run, where it was begun and has not ended."""
        return 0 if 0 not in trial.runs else None

    def _deserves_more(self, trial: TrialRecord) -> bool:
        return 0 in trial.runs and trial.state(self.sweep.repeats) == "running" and trial.runs[0].state == "finished"

    def promoted(self, trials: list[TrialRecord], busy: Container[Place]) -> int | None:
        """The paused trial that goes on now."""
        if self.judge is None:
            return None
        paused = {
            trial.index: trial.epochs
            for trial in trials
            if trial.state(self.sweep.repeats) == "paused" and (trial.index, 0) not in busy
        }
        return self.judge.promoted(paused, {trial.index: trial.costs for trial in trials}) if paused else None

    def _new(self, trials: list[TrialRecord], busy: Container[Place]) -> New | None:
        index = next((number for number in range(len(trials) + 1) if number not in self.study.trials), self.most)
        if index >= self.most:
            return None
        waits = self.study.settings.waits_for(index)
        if any((trial.index, 0) in busy or trial.state(self.sweep.repeats) == "running" for trial in trials[:waits]):
            return None
        setting = self.study.settings.draw(index, self.study.told())
        return New(index, setting) if setting is not None else None
