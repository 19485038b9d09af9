"""Whether two results differ by more than chance: tests on the same examples, and over the same seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from dltrain.evidence.intervals import LEVEL, RESAMPLES, SEED, Interval, bootstrap, of_mean
from dltrain.tasks.measures import Measure

EXACT = 16
"""Differences up to which all changes of sign are tried."""


@dataclass(frozen=True)
class McNemar:
    """Of two networks on the same examples: how many the first alone has right, how many the second alone, and how
    probable a difference as large is where both are equally good."""

    first_alone: int
    second_alone: int
    p: float


@dataclass(frozen=True)
class Difference:
    """Second minus first, its interval, and how probable one as large is by chance."""

    value: float
    interval: Interval
    p: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """The exact test of whether answers are right, (N,) bool each: those on which both agree say nothing, and of the
    others either is as likely to be right (McNemar 1947, https://doi.org/10.1007/BF02295996)."""
    alone, other = int((first & ~second).sum()), int((second & ~first).sum())
    p = float(stats.binomtest(other, alone + other).pvalue) if alone + other else 1.0
    return McNemar(alone, other, p)


def share_difference(test: McNemar, examples: int, level: float = LEVEL) -> Difference:
    """Of the shares that are right: the interval of what score tests do not reject, and McNemar's p. It holds where few
    examples are apart, of which a bootstrap knows too little."""
    only, other, each = test.second_alone, test.first_alone, (1 + level) / 2
    low, high = -share_bound(other, only, examples, each), share_bound(only, other, examples, each)
    return Difference((only - other) / examples, Interval(low, high, level), test.p)


def share_bound(worse: int, better: int, examples: int, level: float = LEVEL) -> float:
    """The largest difference of two shares on the same examples that a one-sided score test does not reject.

    worse, better: the examples that the first, and the second, alone has right. At a difference of 0 the test is
    McNemar's. It holds for few examples, also where both are right on the same ones: then it is z^2 / (N + z^2)
    (Tango 1998, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B).
    """
    z, apart = float(stats.norm.ppf(level)), worse - better
    if worse == examples:
        return 1.0

    def beyond(loss: float) -> float:
        linear = 2 * examples * loss - worse - better - apart * loss
        constant = better * loss * (1 - loss)
        root = math.sqrt(max(linear**2 + 8 * examples * constant, 0.0))
        # the likeliest share of examples that the second alone has right, where the difference is `loss`
        gained = max((root - linear) / (4 * examples), 0.0)
        spread = max(examples * (2 * gained + loss * (1 - loss)), 0.0)
        return apart - examples * loss + z * math.sqrt(spread)

    return float(optimize.brentq(beyond, apart / examples + 1e-9, 1.0))


def paired_bootstrap(
    first: Measure, second: Measure, size: int, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED
) -> Difference:
    """The difference of a metric of two networks on the same examples, both measured on each sample.

    p: twice the share of samples in which the difference has not the sign that it has (Efron & Tibshirani 1993, 15.4),
    at least 2 / (resamples + 1).
    """
    found = bootstrap(lambda counts: second(counts) - first(counts), size, level=level, resamples=resamples, seed=seed)
    below, above = (int(each.sum()) for each in (found.values <= 0, found.values >= 0))
    p = min(2 * (min(below, above) + 1) / (len(found.values) + 1), 1.0)
    return Difference(found.value, found.interval, p if len(found.values) else np.nan)


def paired_t(first: Sequence[float], second: Sequence[float], level: float = LEVEL) -> Difference:
    """The mean difference over pairs with the same seed, by Student's t: exact where differences are normal."""
    differences = np.subtract(second, first)
    spread, mean = np.ptp(differences), float(np.mean(differences))
    if len(differences) < 2 or spread == 0:  # nothing is known of the spread
        exact = len(differences) > 1
        interval = Interval(mean, mean, level) if exact else Interval(-np.inf, np.inf, level)
        return Difference(mean, interval, float(mean == 0) if exact else 1.0)
    return Difference(mean, of_mean(differences.tolist(), level), float(stats.ttest_rel(second, first).pvalue))


def sign_flip(differences: Sequence[float], *, resamples: int = 10_000, seed: int = SEED) -> float:
    """The probability of a mean as far from 0, where each difference is as likely to have the other sign: exact for
    equal sides whatever their distribution (Fisher 1935). Of EXACT differences or less, all signs are tried."""
    tried = np.inf if len(differences) <= EXACT else resamples
    found = stats.permutation_test(
        (np.asarray(differences, dtype=np.float64),), lambda values, axis: values.mean(axis), vectorized=True,
        permutation_type="samples", n_resamples=tried, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """The same for several tests at once: the probability that any of them errs stays as stated (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    found = np.empty(len(p_values))
    found[order] = np.maximum.accumulate(steps).clip(max=1.0)
    adjusted: list[float] = found.tolist()
    return adjusted
