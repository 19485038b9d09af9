"""The contract of pruners: they judge by what trials have reached, and by that alone."""

from __future__ import annotations

import math
from typing import Any

from dltrain.search.judging import Judge
from dltrain.search.pruners import Pruner
from dltrain.testing.contract import Contract

EPOCHS, TRIALS = 27, 120


def judged(judge: Judge, cost: Any) -> dict[int, dict[int, float]]:
    """What trials had reached by the epochs at which they are judged, if all were trained to their end."""
    return {
        trial: {epoch: cost(trial, epoch) for epoch in range(1, EPOCHS + 1) if judge.asks(trial, epoch)}
        for trial in range(TRIALS)
    }


def usual(trial: int, epoch: int) -> float:
    """Trial 0 is the best at every epoch, and the last one the worst."""
    return trial + 1 / epoch


class PrunerContract(Contract):
    """A pruner ends bad trials before their end, keeps the best ones, and says the same of the same."""

    kind = Pruner

    def judge(self, choice: Any) -> Judge:
        """Of trials of 27 epochs."""
        judge: Judge = self.parse(choice).build(EPOCHS)
        return judge

    def test_trials_are_judged_before_their_end_alone(self, choice: Any) -> None:
        costs = judged(self.judge(choice), usual)
        assert all(epoch < EPOCHS for reached in costs.values() for epoch in reached)
        assert any(costs.values())

    def test_of_many_the_best_goes_on_and_the_worst_does_not(self, choice: Any) -> None:
        judge = self.judge(choice)
        costs = judged(judge, usual)
        assert all(judge.goes_on(0, epoch, costs) for epoch in costs[0])
        worst = max(trial for trial, reached in costs.items() if reached)
        assert not all(judge.goes_on(worst, epoch, costs) for epoch in costs[worst])

    def test_the_first_trial_and_one_that_diverged(self, choice: Any) -> None:
        judge = self.judge(choice)
        costs = judged(judge, lambda trial, epoch: math.inf if trial == 5 else usual(trial, epoch))
        assert not any(judge.goes_on(5, epoch, costs) for epoch in costs[5])
        assert judge.promoted({5: min(costs[5])}, costs) is None

    def test_what_is_promoted_was_paused(self, choice: Any) -> None:
        judge = self.judge(choice)
        costs = judged(judge, usual)
        paused = {trial: min(reached) for trial, reached in costs.items() if reached}
        chosen = judge.promoted(paused, costs)
        assert (chosen is not None) is self.parse(choice).resumes
        assert chosen is None or chosen in paused
        assert judge.promoted({}, costs) is None

    def test_the_same_is_said_of_the_same(self, choice: Any) -> None:
        first, second = self.judge(choice), self.judge(choice)
        costs = judged(first, usual)
        for trial in (0, 1, 40, 80, TRIALS - 1):
            for epoch in costs[trial]:
                assert first.goes_on(trial, epoch, costs) is second.goes_on(trial, epoch, dict(reversed(costs.items())))
