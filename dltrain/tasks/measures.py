"""The metrics of a measured split, each as a function of how often every example counts.

A bootstrap asks for a metric of many samples drawn from the same examples; counted so, thousands cost a few products of
matrices. counts: (R, N), a row a sample, at least 0, whole numbers or not -> (R,) values. numpy; no torch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Measure = Callable[[np.ndarray], np.ndarray]
"""(R, N) how often each example counts -> (R,) the metric of each row; not a number where it is not defined."""


def mean_of(values: np.ndarray) -> Measure:
    """The mean of values (N,)."""
    values = values.astype(np.float64)
    return lambda counts: counts @ values / counts.sum(1)


def root_mean_square(errors: np.ndarray) -> Measure:
    """The root of the mean square of errors (N, n), and of that the mean over the n numbers."""
    squares = errors.astype(np.float64) ** 2
    return lambda counts: np.sqrt(counts @ squares / counts.sum(1, keepdims=True)).mean(1)


def mean_distance(errors: np.ndarray) -> Measure:
    """The mean of the sizes of errors (N, n), over all numbers."""
    return mean_of(np.abs(errors).mean(1))


def explained(errors: np.ndarray, targets: np.ndarray) -> Measure:
    """R2, the share of the variance of targets (N, n) that is explained, the mean over the numbers; not a number where
    targets do not vary."""
    squares, centred = errors.astype(np.float64) ** 2, targets - targets.mean(0)

    def of(counts: np.ndarray) -> np.ndarray:
        total = counts @ centred**2
        spread = total - (counts @ centred) ** 2 / counts.sum(1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            found: np.ndarray = np.where(spread > 1e-12 * total, 1 - counts @ squares / spread, np.nan).mean(1)
        return found

    return of


class Decisions:
    """Metrics of answers to K yes-or-no questions. answered, truth: (N, K) bool."""

    def __init__(self, answered: np.ndarray, truth: np.ndarray) -> None:
        self._kinds = [kind.astype(np.float64) for kind in (answered & truth, answered & ~truth, ~answered & truth)]

    def _sums(self, counts: np.ndarray) -> list[np.ndarray]:
        """Right, wrong and missed yes: (R, K) each."""
        return [counts @ kind for kind in self._kinds]

    def precision(self, counts: np.ndarray) -> np.ndarray:
        """Of the first question: the share of right ones among all yes; 0 of none, as in scikit-learn."""
        right, wrong, _ = self._sums(counts)
        return _ratio(right, right + wrong)[:, 0]

    def recall(self, counts: np.ndarray) -> np.ndarray:
        """Of the first question: the share of the true that are found; 0 of none."""
        right, _, missed = self._sums(counts)
        return _ratio(right, right + missed)[:, 0]

    def micro_f1(self, counts: np.ndarray) -> np.ndarray:
        """2 right / (2 right + wrong + missed), of all questions together."""
        right, wrong, missed = (sums.sum(1) for sums in self._sums(counts))
        return _ratio(2 * right, 2 * right + wrong + missed)

    def macro_f1(self, counts: np.ndarray) -> np.ndarray:
        """The mean over the questions to which yes is answered, or should be."""
        right, wrong, missed = self._sums(counts)
        whole = 2 * right + wrong + missed
        return _ratio(_ratio(2 * right, whole).sum(1), (whole > 0).sum(1))


class Ranking:
    """How well scores put the examples that are true before the others: equal scores are taken together.

    scores: (N,). truth: (N,) bool. As in Fawcett 2006 (https://doi.org/10.1016/j.patrec.2005.10.010).
    """

    def __init__(self, scores: np.ndarray, truth: np.ndarray) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ordered = scores[self._order]
        self._starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        self._truth = truth[self._order]

    def _sums(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """True and other examples (R, G) of each score, the highest first."""
        ordered = counts[:, self._order]
        yes = np.add.reduceat(ordered * self._truth, self._starts, axis=1)
        return yes, np.add.reduceat(ordered, self._starts, axis=1) - yes

    def roc_auc(self, counts: np.ndarray) -> np.ndarray:
        """How often a true example has a higher score than another, equal ones counting half."""
        yes, no = self._sums(counts)
        below = no.sum(1, keepdims=True) - no.cumsum(1) + no / 2
        return _ratio((yes * below).sum(1), yes.sum(1) * no.sum(1), np.nan)

    def average_precision(self, counts: np.ndarray) -> np.ndarray:
        """Sum over scores of precision times the recall that is gained, without interpolation."""
        yes, no = self._sums(counts)
        right = yes.cumsum(1)
        return _ratio((yes * _ratio(right, right + no.cumsum(1))).sum(1), yes.sum(1), np.nan)


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> Measure:
    """The mean of the average precision over labels, scores and truth (N, K), that an example has."""
    rankings = [Ranking(*columns) for columns in zip(scores.T, truth.T, strict=True)]

    def of(counts: np.ndarray) -> np.ndarray:
        each = np.stack([ranking.average_precision(counts) for ranking in rankings], axis=1)
        return _ratio(np.nan_to_num(each, nan=0.0).sum(1), (~np.isnan(each)).sum(1), np.nan)

    return of


def _ratio(part: np.ndarray, whole: np.ndarray, of_nothing: float = 0.0) -> np.ndarray:
    found: np.ndarray = np.divide(part, whole, out=np.full(np.shape(part), of_nothing), where=whole > 0)
    return found
