"""Drawing settings: what all samplers share, and those that look at no result: random, quasi-random, grid.

A space and a seed flow in, settings flow out, each as what was drawn of the keys that take part.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count, islice
from typing import Any

import optuna
import torch
from optuna.samplers import RandomSampler
from optuna.trial import create_trial
from torch.quasirandom import SobolEngine

from dltrain.data.random import derive_seed
from dltrain.search.conditions import Space
from dltrain.search.impl.distributions import distributions
from dltrain.search.trials import Told

REDRAWS = 100
"""Draws of one trial that may give a setting of an earlier one, before it is chosen among those that are left."""


class Sampling(ABC):
    """Draws the trials of a sweep, or of a round of it."""

    @abstractmethod
    def draw(self, index: int, told: Sequence[Told], tried: Collection[str]) -> dict[str, Any] | None:
        """What is drawn for trial `index` of the keys that take part; None when no setting is left.

        told: the other trials whose settings lie in the space, by their index. tried: the identities of these.
        """


class Chance:
    """Every key independently at random (Bergstra & Bengio 2012), as a function of (seed, trial, redraw)."""

    def __init__(self, space: Space, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.seed, self.size = space, seed, space.size()
        self._distributions = distributions(space)
        self._study, self._trial = optuna.create_study(), create_trial(value=0.0)  # asked for, and not looked at

    def new(self, index: int, tried: Collection[str]) -> dict[str, Any] | None:
        """A setting that was not `tried`, as far as there is one; None when a finite space has none left."""
        if self.size is not None and len(tried) >= self.size:
            return None
        for redraw in range(REDRAWS):
            drawn = self._draw(index, redraw)
            if self.space.identity(drawn) not in tried:
                return drawn
        return drawn if self.size is None else self.among_others(index, tried)

    def _draw(self, index: int, redraw: int) -> dict[str, Any]:
        sampler = RandomSampler(seed=derive_seed(self.seed, index, f"sweep {redraw}" if redraw else "sweep"))
        found = {
            key: sampler.sample_independent(self._study, self._trial, key, of)
            for key, of in self._distributions.items()
        }
        return self.space.active(found)

    def among_others(self, index: int, tried: Collection[str]) -> dict[str, Any]:
        """A setting of a finite space that was not `tried`, each as likely as the others."""
        assert self.size is not None
        chance = random.Random(derive_seed(self.seed, index, "sweep, the rest"))
        every = self.space.every(self.space.drawable())
        new = (drawn for drawn in every if self.space.identity(drawn) not in tried)
        return next(islice(new, chance.randrange(self.size - len(tried)), None))


class Settled(Sampling):
    """Draws one setting after another whatever becomes of them. What was drawn is kept: it is always the same."""

    def __init__(self, space: Space, seed: int, first: int, tried: Collection[str]) -> None:
        self.space, self.seed, self.first = space, seed, first
        self.chance = Chance(space, seed)
        self._known: list[dict[str, Any]] = []
        self._rest = self.settings(set(tried))

    def draw(self, index: int, told: Sequence[Told], tried: Collection[str]) -> dict[str, Any] | None:
        place = index - self.first
        self._known += islice(self._rest, max(place + 1 - len(self._known), 0))
        return self._known[place] if place < len(self._known) else None

    @abstractmethod
    def settings(self, tried: set[str]) -> Iterator[dict[str, Any]]:
        """All settings, one after another, beginning with that of trial `first`."""


class RandomSequence(Settled):
    """Every key at random; a setting of an earlier trial is drawn again."""

    def settings(self, tried: set[str]) -> Iterator[dict[str, Any]]:
        for index in count(self.first):
            drawn = self.chance.new(index, tried)
            if drawn is None:
                return
            tried.add(self.space.identity(drawn))
            yield drawn


class SobolSequence(Settled):
    """The points of a scrambled Sobol sequence, without those that give the setting of an earlier trial."""

    def settings(self, tried: set[str]) -> Iterator[dict[str, Any]]:
        points = self._points()
        for index in count(self.first):
            if self.chance.size is not None and len(tried) >= self.chance.size:
                return
            for _ in range(REDRAWS):
                drawn = self.space.at(dict(zip(self.space.ranges, next(points), strict=True)))
                if self.space.identity(drawn) not in tried:
                    break
            else:
                if self.chance.size is not None:
                    drawn = self.chance.among_others(index, tried)
            tried.add(self.space.identity(drawn))
            yield drawn

    def _points(self) -> Iterator[list[float]]:
        """In [0, 1], one per key."""
        seed = derive_seed(self.seed, self.first, "sweep, sobol")
        engine = SobolEngine(len(self.space.ranges), scramble=True, seed=seed)  # type: ignore[no-untyped-call]
        while True:
            yield from engine.draw(64, dtype=torch.float64).tolist()


class GridSequence(Settled):
    """Every combination of values, in an order drawn at random: so any number of first trials covers the grid."""

    def __init__(
        self, space: Space, seed: int, first: int, tried: Collection[str], values: Mapping[str, list[Any]]
    ) -> None:
        self.values = values
        super().__init__(space, seed, first, tried)

    def settings(self, tried: set[str]) -> Iterator[dict[str, Any]]:
        every = list(self.space.every(self.values))
        random.Random(derive_seed(self.seed, self.first, "sweep, grid")).shuffle(every)
        for drawn in every:
            if self.space.identity(drawn) not in tried:
                yield drawn
