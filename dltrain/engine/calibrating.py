"""How sure a network may say that it is: the temperature of its logits, and sets of classes that hold the true one.

Imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from dltrain.errors import RunError
from dltrain.runs.calibrations import COLDEST, HOTTEST

TOLERANCE = 1e-6
"""Of the logarithm of a temperature."""


def fit_temperature(losses: Callable[[Tensor], Tensor], logits: Tensor) -> float:
    """The T that minimises the mean of losses(logits / T) over log T (Guo et al. 2017), by Brent's bounded method to
    TOLERANCE. The mean is convex in 1 / T, so that it has one minimum.

    losses: the negative log-likelihood of each example (N,) of logits (N, ...), a strictly proper one. Raises RunError
    where the minimum is at no temperature between COLDEST and HOTTEST.
    """
    from scipy.optimize import minimize_scalar

    wide = logits.double()

    def mean(log: float) -> float:
        return float(losses(wide / math.exp(log)).mean())

    low, high = math.log(COLDEST), math.log(HOTTEST)
    found = minimize_scalar(mean, bounds=(low, high), method="bounded", options={"xatol": TOLERANCE})
    if not math.isfinite(found.fun):
        raise RunError("the validation split has no finite likelihood: there is no temperature to fit")
    if mean(low) <= found.fun:  # it falls, or is 0, down to the coldest
        raise RunError("every validation answer is right: the likelihood grows with ever more certainty, and there is "
                       "no temperature to fit")  # fmt: skip
    if mean(high) <= found.fun:
        raise RunError("the network knows nothing of the validation split: the likelihood grows with ever less "
                       "certainty, and there is no temperature to fit")  # fmt: skip
    return math.exp(found.x)


def needed(alpha: Fraction) -> int:
    """How many examples a set of classes with coverage 1 - alpha takes: the least n with (n + 1)(1 - alpha) <= n."""
    return max(1, math.ceil(1 / alpha - 1))


@dataclass(frozen=True)
class ConformalSets:
    """Sets of classes that hold the true one with a probability of 1 - alpha or more, over calibration examples and new
    ones that are exchangeable: split-conformal prediction with the score 1 - probability of the true class (LAC;
    Angelopoulos & Bates 2021, section 1).

    least: the probability from which a class is in the set. examples: of the calibration.
    """

    alpha: Fraction
    examples: int
    least: float

    @classmethod
    def of(cls, true: Iterable[float], alpha: Fraction) -> ConformalSets:
        """true: the probability of the true class of each calibration example. Raises RunError for too few."""
        found = np.sort(np.fromiter(true, dtype=np.float64))[::-1]  # scores 1 - p in rising order
        count = len(found)
        if count < needed(alpha):
            stated = f"{float(1 - alpha):.6g}"
            raise RunError(
                f"sets with a coverage of {stated} take {needed(alpha):,} validation examples, and there are {count:,}"
            )
        place = math.ceil((count + 1) * (1 - alpha))
        return cls(alpha, count, float(found[place - 1]))

    def holds(self, probabilities: Tensor) -> Tensor:
        """Whether each class is in the set (B, K) bool. probabilities: (B, K)."""
        return probabilities.double() >= self.least

    def told(self) -> str:
        """In a sentence."""
        return (
            f"`set` holds the true class with a probability of {float(1 - self.alpha):.6g} or more (split-conformal, "
            f"{self.examples:,} validation examples): the classes with a probability of {self.least:.6f} or more; "
            "`abstains` where that is not one class. It counts on examples like those of validation"
        )


def true_probabilities(probabilities: Tensor, targets: Tensor) -> list[float]:
    """The probability of the class that is true. probabilities: (B, K). targets: (B,) int64."""
    found: list[float] = torch.gather(probabilities.double(), 1, targets[:, None])[:, 0].tolist()
    return found
