"""Ranges as Optuna's distributions."""

from __future__ import annotations

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from dltrain.search.conditions import Space
from dltrain.search.space import Range


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space as Optuna's distributions. Choices are drawn by their place in the list: they may be anything."""
    return {
        key: CategoricalDistribution(space.places[key]) if key in space.places else distribution(range_)
        for key, range_ in space.ranges.items()
    }


def distribution(range_: Range) -> BaseDistribution:
    """An interval as Optuna's distribution."""
    low, high = range_.bounds()
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=range_.log, step=int(range_.step or 1))
    return FloatDistribution(low, high, log=range_.log, step=range_.step)
