"""Which keys decide the result: functional analysis of variance over the trials (Hutter, Hoos & Leyton-Brown 2014)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from dltrain.search import Range
from dltrain.sweeps.story import Objective, SearchStory, TrialStory, identity

FEWEST = 10
"""Trials below which a forest says nothing of a key."""
SEED = 0
DEPTH = 6
"""Of the forest's trees. Deeper ones tell single trials apart: no share of 250 trials differed by more than 0.005, and
it took six times as long."""


@dataclass(frozen=True)
class Importance:
    """How much of the variance of an objective each key explains by itself.

    shares: by key, from 0 to 1, largest first; what is missing to 1 is how keys act together. within: the same of keys
    that only some trials set, among the trials that set them, with their number. why_not: why there are no shares.
    """

    objective: Objective
    shares: Mapping[str, float] = field(default_factory=dict)
    within: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    trials: int = 0
    why_not: str = ""


def importance(story: SearchStory, objective: Objective) -> Importance:
    """The importance of each key for one objective, by the trials that came to an end.

    Pruned trials do not count: their values are of a shorter training. A logarithmic range counts evenly in its
    logarithm, as it is drawn; all trials count in the widest range of their key, also where rounds have narrowed it.
    Results far worse than most count as the worst of the others: how far a diverged one got would hide all else.
    """
    trials = story.measured
    if len(trials) < FEWEST:
        return Importance(objective, why_not=f"it takes {FEWEST} finished trials, and there are {len(trials)}")
    if len({trial.metrics[objective.tag] for trial in trials}) == 1:
        return Importance(objective, why_not=f"all {len(trials)} trials have the same {objective.name}")
    common = [key for key in story.space if all(key in trial.values for trial in trials)]
    shares = _explained(story.space, common, trials, objective)
    within = {}
    for key in story.space:
        having = [trial for trial in trials if key in trial.values]
        if key in common or len(having) < FEWEST or len({trial.metrics[objective.tag] for trial in having}) == 1:
            continue
        active = [each for each in story.space if all(each in trial.values for trial in having)]
        within[key] = (_explained(story.space, active, having, objective)[key], len(having))
    ordered = dict(sorted(shares.items(), key=lambda item: -item[1]))
    return Importance(objective, ordered, dict(sorted(within.items(), key=lambda item: -item[1][0])), len(trials))


def _explained(
    space: Mapping[str, Range], keys: Sequence[str], trials: Sequence[TrialStory], objective: Objective
) -> dict[str, float]:
    """The share of the variance that each key explains by itself."""
    from optuna.importance import FanovaImportanceEvaluator  # a second, which no search should begin with

    optuna.logging.set_verbosity(logging.ERROR)  # it announces every study
    axes = {key: _distribution(space[key]) for key in keys}
    study = optuna.create_study(direction="minimize")
    results = [trial.metrics[objective.tag] for trial in trials]
    near = objective.axis(results)
    for trial, result in zip(trials, results, strict=True):
        params = {key: _inner(space[key], trial.values[key]) for key in keys}
        value = objective.cost(min(max(result, near.low), near.high))
        study.add_trial(optuna.create_trial(params=params, distributions=axes, value=value))
    found = FanovaImportanceEvaluator(seed=SEED, max_depth=DEPTH).evaluate(study, params=list(keys))
    return {key: min(max(float(found[key]), 0.0), 1.0) for key in keys}


def _distribution(range_: Range) -> BaseDistribution:
    """The range as the forest sees it. It weighs a range evenly: a logarithmic one is given as its logarithm."""
    if range_.choices is not None:
        return CategoricalDistribution(range(len(range_.choices)))
    low, high = range_.bounds()
    return FloatDistribution(math.log(low), math.log(high)) if range_.log else FloatDistribution(low, high)


def _inner(range_: Range, value: Any) -> Any:
    if range_.choices is not None:
        return [identity(choice) for choice in range_.choices].index(identity(value))
    low, high = range_.bounds()
    inside = min(max(value, low), high)
    return math.log(inside) if range_.log else float(inside)
