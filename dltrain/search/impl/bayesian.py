"""Samplers that learn: Optuna's, on a study in memory that is made anew of what trials have told at each draw."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Collection, Container, Sequence
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from dltrain.data.random import derive_seed
from dltrain.search.conditions import Space
from dltrain.search.impl.distributions import distributions
from dltrain.search.impl.sampling import Chance, Sampling
from dltrain.search.trials import Told


class LearningSampling(Sampling):
    """Draws at random until enough trials have ended well, and from then on by what they tell."""

    redraws: int
    """Draws of one trial that may give a setting of an earlier one, before it is drawn at random."""

    def __init__(self, space: Space, seed: int, startup: int) -> None:
        self.space, self.seed, self.startup = space, seed, startup
        self.chance = Chance(space, seed)

    def draw(self, index: int, told: Sequence[Told], tried: Collection[str]) -> dict[str, Any] | None:
        if self.chance.size is not None and len(tried) >= self.chance.size:
            return None
        if sum(trial.costs is not None for trial in told) >= self.startup:
            for redraw in range(self.redraws):
                drawn = self.space.active(self.proposed(told, derive_seed(self.seed, index, redraw, "sweep, learning")))
                if self.space.identity(drawn) not in tried:
                    return drawn
        return self.chance.new(index, tried)

    @abstractmethod
    def proposed(self, told: Sequence[Told], seed: int) -> dict[str, Any]:
        """A value for every key."""


class TPESampling(LearningSampling):
    """Groups of keys that trials have together are drawn together, so that conditional keys are learned as well."""

    redraws = 10

    def __init__(self, space: Space, seed: int, startup: int, candidates: int) -> None:
        super().__init__(space, seed, startup)
        self.candidates = candidates

    def proposed(self, told: Sequence[Told], seed: int) -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of `group`
            sampler = TPESampler(
                seed=seed,
                n_startup_trials=0,
                n_ei_candidates=self.candidates,
                multivariate=True,
                group=True,
                constant_liar=True,
            )
        of = distributions(self.space)
        return _asked(sampler, [_known(t, t.drawn, of) for t in told], of)


class GPSampling(LearningSampling):
    """A Gaussian process knows no keys that are missing: those that take no part lie in the middle of their range."""

    redraws = 1  # the process is the same at the next one

    def proposed(self, told: Sequence[Told], seed: int) -> dict[str, Any]:
        sampler = GPSampler(seed=seed, n_startup_trials=0, warn_independent_sampling=False)
        of = distributions(self.space)
        middle = {
            key: self.space.places[key][0] if key in self.space.places else range_.at(0.5)
            for key, range_ in self.space.ranges.items()
        }
        worst = tuple(map(max, zip(*(trial.costs for trial in told if trial.costs is not None), strict=True)))
        return _asked(sampler, [_known(t, {**middle, **t.drawn}, of, worst) for t in told], of)


def _known(
    trial: Told, drawn: dict[str, Any], of: dict[str, BaseDistribution], failed: tuple[float, ...] | None = None
) -> FrozenTrial:
    """A trial in Optuna's words. One that failed has the costs given, or was pruned before it told any."""
    costs = trial.costs or (failed if trial.ended else None)
    state = TrialState.COMPLETE if costs else TrialState.PRUNED if trial.ended else TrialState.RUNNING
    began = datetime.min
    return FrozenTrial(
        number=trial.index + 1, trial_id=trial.index + 1, state=state, value=None, values=costs, params=drawn,
        distributions={key: of[key] for key in drawn}, datetime_start=began, datetime_complete=began,
        user_attrs={}, system_attrs={}, intermediate_values={},
    )  # fmt: skip


class _Memory(InMemoryStorage):
    """A storage that has some trials besides its own, which is number 0: adding them would copy each a few times."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self.trials = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        known = [trial for trial in self.trials if states is None or trial.state in states]
        return [*known, *super().get_all_trials(study_id, deepcopy, states)]


def _asked(sampler: BaseSampler, trials: Sequence[FrozenTrial], of: dict[str, BaseDistribution]) -> dict[str, Any]:
    objectives = next(len(trial.values) for trial in trials if trial.values)
    directions = [StudyDirection.MINIMIZE] * objectives
    study = optuna.create_study(directions=directions, sampler=sampler, storage=_Memory(trials))
    found: dict[str, Any] = study.ask(of).params
    return found
