"""How pruners judge trials: pure functions of what the trials have reached."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dltrain.search.judging import Costs

GOLDEN = (math.sqrt(5) - 1) / 2
"""Its multiples, whole parts left out, fill 0..1 evenly, however many are taken."""


@dataclass(frozen=True)
class Median:
    """The median rule, as Optuna's MedianPruner states it."""

    startup_trials: int
    warmup_epochs: int
    epochs: int

    def asks(self, trial: int, epoch: int) -> bool:
        """After each epoch of those that every trial trains, but the last one."""
        return self.warmup_epochs <= epoch < self.epochs

    def goes_on(self, trial: int, epoch: int, costs: Costs) -> bool:
        """See Judge."""
        others = [reached[epoch] for other, reached in costs.items() if other != trial and epoch in reached]
        if len(others) < self.startup_trials:
            return True
        return costs[trial][epoch] <= statistics.median(others)

    def promoted(self, paused: Mapping[int, int], costs: Costs) -> int | None:
        """None: what is worse than the median has ended."""
        return None


@dataclass(frozen=True)
class Rungs:
    """Where the trials of a bracket pause: after `first`, `first` factor, `first` factor^2, ... epochs."""

    first: int
    factor: int
    epochs: int

    def epochs_of(self) -> list[int]:
        """The epochs of the pauses, each before the last epoch of a trial."""
        found, epoch = [], self.first
        while epoch < self.epochs:
            found.append(epoch)
            epoch *= self.factor
        return found


class Bracketed:
    """Asynchronous successive halving in one bracket, or in several side by side."""

    def __init__(self, rungs: Sequence[Rungs], factor: int) -> None:
        self.factor = factor
        self._pauses = [each.epochs_of() for each in rungs]
        # A bracket of r rungs trains about r epochs for each that its last rung has, to one trial of factor^(r - 1).
        shares = [factor ** len(pauses) / (len(pauses) + 1) for pauses in self._pauses]
        self._bounds = [sum(shares[: index + 1]) / sum(shares) for index in range(len(shares))]

    def bracket(self, trial: int) -> int:
        """The bracket that a trial belongs to."""
        place = trial * GOLDEN % 1.0
        return next((index for index, bound in enumerate(self._bounds) if place < bound), len(self._bounds) - 1)

    def asks(self, trial: int, epoch: int) -> bool:
        """At its bracket's rungs."""
        return epoch in self._pauses[self.bracket(trial)]

    def goes_on(self, trial: int, epoch: int, costs: Costs) -> bool:
        """Whether it is among the best of its rung."""
        return trial in self._best(self.bracket(trial), epoch, costs)

    def promoted(self, paused: Mapping[int, int], costs: Costs) -> int | None:
        """The best one of the highest rung at which a paused trial belongs to the best by now."""
        for epoch in sorted(set(paused.values()), reverse=True):
            for bracket in range(len(self._pauses)):
                for trial in self._best(bracket, epoch, costs):
                    if paused.get(trial) == epoch:
                        return trial
        return None

    def _best(self, bracket: int, epoch: int, costs: Costs) -> list[int]:
        """The trials of a rung that go on, the best first: one of `factor`, of finite cost."""
        reached = {trial: at[epoch] for trial, at in costs.items() if epoch in at and self.bracket(trial) == bracket}
        best = sorted(reached, key=lambda trial: (reached[trial], trial))[: len(reached) // self.factor]
        return [trial for trial in best if math.isfinite(reached[trial])]


def brackets(first: int, factor: int, epochs: int) -> list[Rungs]:
    """Hyperband's brackets: each begins at the next power of `factor`, the last one has one pause."""
    found, start = [], first
    while start < epochs:
        found.append(Rungs(start, factor, epochs))
        start *= factor
    return found or [Rungs(first, factor, epochs)]
