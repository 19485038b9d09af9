"""Pruners judge as the papers and Optuna say, and a search with them keeps what it promises."""

from __future__ import annotations

import math
import random
from collections import Counter

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from dltrain.search.pruners import Hyperband, MedianPruner, Pruner, SuccessiveHalving
from dltrain.testing import PrunerContract

EPOCHS = 9


class TestPruners(PrunerContract):
    names = Pruner.all_names()
    variants = [{"name": "median", "startup_trials": 1}, {"name": "successive_halving", "factor": 2, "min_epochs": 2}]


def test_the_median_rule_is_optunas() -> None:
    """On random curves of trials that were all trained to their end, at every epoch of another trial."""
    chance = random.Random(0)
    for startup in (2, 5):
        judge = MedianPruner(startup_trials=startup, warmup_epochs=1).build(EPOCHS)
        theirs = optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=0, n_min_trials=startup)
        for _ in range(60):
            study = optuna.create_study()
            costs = {}
            for trial in range(chance.randrange(1, 9)):
                best, curve = math.inf, {}
                for epoch in range(1, EPOCHS + 1):
                    best = min(best, round(chance.random(), 2))
                    curve[epoch] = best
                costs[trial] = curve
                study.add_trial(create_trial(value=best, intermediate_values=curve))
            own = {1: round(chance.random(), 2)}
            for epoch in range(2, EPOCHS):
                own[epoch] = min(own[epoch - 1], round(chance.random(), 2))
            for epoch in range(1, EPOCHS):
                assert judge.asks(99, epoch)
                seen = {k: v for k, v in own.items() if k <= epoch}
                frozen = create_trial(state=TrialState.RUNNING, intermediate_values=seen)
                assert judge.goes_on(99, epoch, {**costs, 99: seen}) is not theirs.prune(study, frozen)


def test_a_third_goes_on_at_each_rung() -> None:
    judge = SuccessiveHalving().build(27)
    assert [epoch for epoch in range(1, 28) if judge.asks(0, epoch)] == [1, 3, 9]
    costs = {trial: {1: trial / 10} for trial in range(9)}
    assert [trial for trial in costs if judge.goes_on(trial, 1, costs)] == [0, 1, 2]
    assert not judge.goes_on(1, 1, {0: {1: 0.0}, 1: {1: 0.5}})  # of two, none is a third


def test_the_best_paused_trial_of_the_highest_rung_goes_on() -> None:
    judge = SuccessiveHalving().build(27)
    costs = {0: {1: 0.5, 3: 0.4}, 1: {1: 0.4, 3: 0.3}, 2: {1: 0.3, 3: 0.2}, 3: {1: 0.9}, 4: {1: 0.8}, 5: {1: 0.2}}
    assert judge.promoted({3: 1, 4: 1, 5: 1, 0: 3, 1: 3, 2: 3}, costs) == 2
    assert judge.promoted({3: 1, 4: 1, 5: 1, 0: 3, 1: 3}, costs) == 5
    assert judge.promoted({3: 1, 4: 1}, costs) is None
    assert judge.promoted({5: 1}, {**costs, 5: {1: math.inf}}) is None  # what diverged never goes on


def test_hyperbands_brackets_train_about_as_long() -> None:
    """Each of its brackets pauses later, and has so many fewer trials (Li et al. 2018, table 1: 81, 34, 15, 8, 5)."""
    judge = Hyperband().build(81)
    dealt = Counter(judge.bracket(trial) for trial in range(14_300))
    paper = [81, 34, 15, 8]
    assert sorted(dealt) == [0, 1, 2, 3]
    for bracket, count in enumerate(paper):
        assert dealt[bracket] / 14_300 == pytest.approx(count / sum(paper), rel=0.12)
    first = [min(epoch for epoch in range(1, 82) if judge.asks(trial, epoch)) for trial in range(200)]
    assert {judge.bracket(trial): epoch for trial, epoch in enumerate(first)} == {0: 1, 1: 3, 2: 9, 3: 27}
    costs = {trial: {epoch: 0.0} for trial, epoch in enumerate(first)}
    best = [trial for trial in costs if judge.goes_on(trial, first[trial], costs)]
    for bracket in dealt:  # trials are compared within their bracket
        count = sum(judge.bracket(trial) == bracket for trial in costs)
        assert sum(judge.bracket(trial) == bracket for trial in best) == count // 3
