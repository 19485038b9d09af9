"""CMA-ES: the state of the strategy is made anew, at each draw, of the generations that trials have told."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from cmaes import CMA, CatCMA
from numpy.typing import NDArray

from dltrain.data.random import derive_seed
from dltrain.search.conditions import Space
from dltrain.search.impl.sampling import Chance, Sampling
from dltrain.search.trials import Told

REDRAWS = 10
Point = NDArray[np.float64]
"""Shares of the way through the ranges of the numeric keys."""


class CMASampling(Sampling):
    """Draws from a normal distribution over the numeric keys, in shares of their ranges, and from a distribution over
    the choices of each other key (CatCMA). A key that takes no part is told as the middle of its range.

    A generation is as many trials as have ended, in the order of their numbers: with several at a time, some that were
    drawn from the distribution before are among them.
    """

    def __init__(self, space: Space, seed: int, first: int, population: int | None, sigma: float) -> None:
        self.space, self.seed, self.first = space, seed, first
        self.population, self.sigma = population, sigma
        self.numeric = [key for key in space.ranges if key not in space.places]
        self.chosen = [key for key in space.ranges if key in space.places and len(space.places[key]) > 1]
        self.idle = int(bool(self.chosen) and len(self.numeric) == 1)
        """A dimension that means nothing: CatCMA needs two."""
        self.chance = Chance(space, seed)

    def draw(self, index: int, told: Sequence[Told], tried: Collection[str]) -> dict[str, Any] | None:
        if self.chance.size is not None and len(tried) >= self.chance.size:
            return None
        strategy = self._after([trial for trial in told if trial.ended and trial.index >= self.first])
        for redraw in range(REDRAWS):
            strategy.reseed_rng(derive_seed(self.seed, index, redraw, "sweep, cma"))
            drawn = self._setting(strategy.ask())
            if self.space.identity(drawn) not in tried:
                return drawn
        return self.chance.new(index, tried)

    def _after(self, ended: Sequence[Told]) -> CMA | CatCMA:
        """The strategy after the whole generations of these trials."""
        dimensions = len(self.numeric) + self.idle
        options: dict[str, Any] = {
            "mean": np.full(dimensions, 0.5), "sigma": self.sigma, "population_size": self.population,
            "bounds": np.tile([0.0, 1.0], (dimensions, 1)), "seed": 0,
        }  # fmt: skip
        counts = np.array([len(self.space.places[key]) for key in self.chosen])
        strategy: CMA | CatCMA = CatCMA(cat_num=counts, **options) if self.chosen else CMA(**options)
        size = strategy.population_size
        for start in range(0, len(ended) - size + 1, size):
            generation = ended[start : start + size]
            costs = [trial.costs[0] for trial in generation if trial.costs is not None]
            if costs:  # one in which all have failed tells nothing
                worst = max(costs)
                strategy.tell([(self._point(t.drawn), t.costs[0] if t.costs else worst) for t in generation])
        return strategy

    def _point(self, drawn: dict[str, Any]) -> Any:
        """A setting as the strategy has it: a point, and with choices which of them are taken, as 0 and 1."""
        ranges = self.space.ranges
        point = np.array(
            [ranges[key].share(drawn[key]) if key in drawn else 0.5 for key in self.numeric] + [0.5] * self.idle
        )
        if not self.chosen:
            return point
        places = [self.space.places[key] for key in self.chosen]
        taken = np.zeros((len(places), max(map(len, places))))
        for row, (key, of) in enumerate(zip(self.chosen, places, strict=True)):
            taken[row, of.index(drawn.get(key, of[0]))] = 1.0
        return point, taken

    def _setting(self, asked: Any) -> dict[str, Any]:
        point, taken = asked if self.chosen else (asked, np.zeros((0, 1)))
        shares = dict.fromkeys(self.space.ranges, 0.0)
        shares |= dict(zip(self.numeric, np.clip(point, 0, 1).tolist(), strict=False))
        for key, row in zip(self.chosen, taken, strict=True):
            shares[key] = (int(np.argmax(row)) + 0.5) / len(self.space.places[key])
        return self.space.at(shares)
