"""Whether one side of a claim is better, decided as soon as the pairs say it: tests that may be looked at any time.

Each pair gives a difference. A test keeps its evidence, a number that begins at 1 and, where there is no difference,
does not grow in expectation, whenever one stops. So it ever reaches 1 / error with a probability of `error` at most
(Ville 1939): one may look after every pair, and stop at any of them.

symmetric: where both sides are equally good, a difference is as likely to have either sign, whatever its size. Given
    the sizes, only signs are random, and 2 / (1 + exp(-2 k x / r)) has the mean 1: a bet of k on the sign of x, in
    units of the root mean square r of the sizes so far. The evidence is the mean over some k of the products. Exact for
    any metric.
normal: differences are normal with any spread. The evidence is the ratio of likelihoods of an effect drawn from a
    normal distribution, and of none, with the spread integrated out (Lai 1976; Wang & Ramdas 2023,
    https://arxiv.org/abs/2310.03722). Fewer pairs decide where the effect is large; of coarse metrics, such as one
    image more or less, the stated error is not exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dltrain.evidence.intervals import Interval

BETS = (0.25, 0.5, 1.0, 2.0, 4.0)
PRIOR = 1.0
"""The precision of the effect, in spreads of the differences: its standard deviation is 1 / sqrt(PRIOR)."""
LARGEST = 700.0
"""Of the logarithm of evidence, so that it is a number."""
POINTS = 400
"""Of the grid on which the ends of an interval are looked for first."""
Assumption = Literal["symmetric", "normal"]
Verdict = Literal["higher", "lower", "alike", "undecided"]


@dataclass(frozen=True)
class Look:
    """What the pairs so far say. evidence: the largest so far. p: 1 / evidence, valid whenever one looks. verdict:
    whether the second side is higher or lower than the first, both are alike, or it is not decided."""

    pairs: int
    mean: float
    interval: Interval
    evidence: float
    p: float
    verdict: Verdict


@dataclass(frozen=True)
class SequentialTest:
    """A test of paired differences, second minus first side, that errs with a probability of `error` at most.

    margin: sides that differ by less are alike; 0: they never are.
    """

    error: float = 0.05
    margin: float = 0.0
    assumes: Assumption = "symmetric"

    def evidence(self, differences: np.ndarray) -> np.ndarray:
        """After each of the pairs (..., n): (..., n)."""
        return _EVIDENCE[self.assumes](differences)

    def interval(self, differences: np.ndarray) -> Interval:
        """All mean differences for which the pairs (n,) are no evidence against: a confidence sequence, which holds the
        true one at all times with a probability of 1 - error at least. It is infinite while too little is known."""
        low, high = (sign * self._reach(sign * differences) for sign in (-1.0, 1.0))
        return Interval(low, high, 1 - self.error)

    def look(self, differences: np.ndarray) -> Look:
        """What (n,) pairs say, in the order in which they were made."""
        evidence = float(self.evidence(differences).max(initial=1.0))
        interval = self.interval(differences)
        mean = float(np.mean(differences)) if len(differences) else 0.0
        verdict: Verdict = "undecided"
        if evidence * self.error >= 1:
            verdict = "higher" if mean > 0 else "lower"
        elif -self.margin < interval.low and interval.high < self.margin:
            verdict = "alike"
        return Look(len(differences), mean, interval, evidence, min(1 / evidence, 1.0), verdict)

    def fewest(self) -> int:
        """Pairs that it takes at least to find a side better: as many as do where all differ alike."""
        pairs = 1
        while self.evidence(np.ones(pairs))[-1] * self.error < 1:
            pairs += 1
        return pairs

    def _reach(self, differences: np.ndarray) -> float:
        """The upper end of the interval."""
        if not len(differences):
            return np.inf
        centre, top = float(np.mean(differences)), float(np.max(differences))
        step = float(np.ptp(differences)) or max(abs(top), 1.0) * 1e-9
        for _ in range(40):
            if self._excluded(differences, np.array([top + step]))[0]:
                break
            step *= 2
        else:
            return np.inf
        grid = np.linspace(centre, top + step, POINTS)
        inside = np.flatnonzero(~self._excluded(differences, grid))
        low, high = (grid[inside[-1]], grid[inside[-1] + 1]) if len(inside) else (centre, centre)
        while high - low > 1e-9 * max(abs(high), abs(low), step):
            middle = (low + high) / 2
            low, high = (low, middle) if self._excluded(differences, np.array([middle]))[0] else (middle, high)
        return float(high)

    def _excluded(self, differences: np.ndarray, means: np.ndarray) -> np.ndarray:
        """(m,) bool: whether the pairs are evidence against each of these mean differences."""
        found: np.ndarray = self.evidence(differences - means[:, None])[:, -1] * self.error >= 1
        return found


def symmetric_evidence(differences: np.ndarray) -> np.ndarray:
    """See above. differences: (..., n), any finite numbers. Returns (..., n)."""
    counts = np.arange(1, differences.shape[-1] + 1)
    size = np.sqrt(np.cumsum(differences**2, axis=-1) / counts)
    signed = np.divide(differences, size, out=np.zeros_like(size), where=size > 0)
    bets = np.array([*BETS, *(-bet for bet in BETS)]).reshape(-1, *[1] * differences.ndim)
    logs = np.cumsum(np.log(2) - np.logaddexp(0, -2 * bets * signed), axis=-1)
    found: np.ndarray = np.exp(np.minimum(logs, LARGEST)).mean(0)
    return found


def normal_evidence(differences: np.ndarray) -> np.ndarray:
    """See above. differences: (..., n), any finite numbers. Returns (..., n)."""
    counts = np.arange(1, differences.shape[-1] + 1)
    total, squares = np.cumsum(differences, axis=-1), np.cumsum(differences**2, axis=-1)
    explained = np.divide(total**2, (counts + PRIOR) * squares, out=np.zeros_like(total), where=squares > 0)
    logs = 0.5 * np.log(PRIOR / (counts + PRIOR)) - counts / 2 * np.log1p(-explained)
    return np.where(squares > 0, np.exp(np.minimum(logs, LARGEST)), 1.0)


_EVIDENCE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "symmetric": symmetric_evidence, "normal": normal_evidence,
}  # fmt: skip
