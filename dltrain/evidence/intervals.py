"""How far off a measured number may be: intervals for shares, for metrics of a split, and for means over seeds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from dltrain.tasks.measures import Measure

LEVEL = 0.95
RESAMPLES = 2_000
SEED = 0
"""Of the draws of a bootstrap: equal tables give equal intervals."""
FEW = 1_000
"""Examples up to which an interval is corrected for skewness; of more the correction is small, and costs much."""
MOST_COUNTS = 4_000_000
"""Numbers that are in memory at once."""


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`, made so that `level` of such intervals hold what is estimated."""

    low: float
    high: float
    level: float = LEVEL

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def wilson(right: int, total: int, level: float = LEVEL) -> Interval:
    """Of a share of independent examples, by Wilson's score (1927, https://doi.org/10.2307/2276774)."""
    found = stats.binomtest(right, total).proportion_ci(level, method="wilson")
    return Interval(float(found.low), float(found.high), level)


def of_mean(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Of a mean over seeds or folds, by Student's t. Of one value nothing is known: infinite."""
    if len(values) < 2:
        return Interval(-np.inf, np.inf, level)
    mean, error = float(np.mean(values)), float(stats.sem(values))
    reach = error * float(stats.t.ppf((1 + level) / 2, len(values) - 1))
    return Interval(mean - reach, mean + reach, level)


@dataclass(frozen=True)
class Bootstrap:
    """What a metric is of samples drawn with replacement from the examples. values: (R,) those where it is defined."""

    value: float
    interval: Interval
    values: np.ndarray


def bootstrap(
    measure: Measure, size: int, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED,
    method: str | None = None,
) -> Bootstrap:  # fmt: skip
    """A metric of `size` examples, and its interval by the bootstrap (Efron & Tibshirani 1993).

    method: percentile, or BCa, which corrects for bias and skewness; by default BCa of FEW examples or less.
    Samples in which the metric is not defined are left out; where it never is, the interval is not a number.
    """

    def statistic(places: np.ndarray, axis: int = -1) -> np.ndarray:
        return measure(counted(places.reshape(-1, places.shape[-1]), size)).reshape(places.shape[:-1])

    value = float(measure(np.ones((1, size)))[0])
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # all samples are alike: see below
        found = stats.bootstrap(
            (np.arange(size),), statistic, n_resamples=resamples, batch=max(MOST_COUNTS // size, 1), vectorized=True,
            confidence_level=level, rng=np.random.default_rng(seed),
            method=method or ("BCa" if size <= FEW else "percentile"),
        )  # fmt: skip
    values = found.bootstrap_distribution
    defined = values[~np.isnan(values)]
    low, high = map(float, found.confidence_interval)
    if len(defined) and np.isnan(low):  # not defined in some samples, or without any spread
        low, high = map(float, np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]))
    return Bootstrap(value, Interval(low, high, level), defined)


def counted(places: np.ndarray, size: int) -> np.ndarray:
    """How often each of `size` examples is drawn in each row (R, n) of places: (R, size) float64."""
    rows = np.arange(len(places))[:, None] * size
    found: np.ndarray = np.bincount((places + rows).ravel(), minlength=len(places) * size).astype(np.float64)
    return found.reshape(len(places), size)
