"""What the scores of a yes-or-no question say, whatever the threshold, and which threshold is best. Imports torch.

scores: (N,) float. truth: (N,) bool. Equal scores count as one place, so that no order among them changes a result.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Curve:
    """For each different score, from the highest: how many examples have it or a higher one, and how many of those are
    true. Computed in float64 on the CPU. Not a number where a score is none."""

    def __init__(self, scores: Tensor, truth: Tensor) -> None:
        scores, truth = scores.detach().cpu().double(), truth.cpu().bool()
        self.finite = bool(scores.isfinite().all())
        ordered, order = scores.sort(descending=True, stable=True)
        self.scores, counts = torch.unique_consecutive(ordered, return_counts=True)
        ends = counts.cumsum(0)
        self.answered = ends.double()
        self.right = truth[order].double().cumsum(0)[ends - 1] if len(scores) else self.answered
        self.positive, self.negative = int(truth.sum()), len(truth) - int(truth.sum())

    @property
    def roc_auc(self) -> float:
        """The area under the curve of true against false positive rates: the chance that a true example scores higher
        than a false one, half for equal scores. Not a number where there are not both."""
        if not (self.finite and self.positive and self.negative):
            return math.nan
        zero = torch.zeros(1, dtype=torch.float64)
        right, wrong = torch.cat([zero, self.right]), torch.cat([zero, self.answered - self.right])
        area = torch.trapezoid(right, wrong)
        return float(area / (self.positive * self.negative))

    @property
    def average_precision(self) -> float:
        """Sum over the places of (recall - recall before) * precision. Not a number where no example is true."""
        if not (self.finite and self.positive):
            return math.nan
        gained = torch.diff(self.right, prepend=torch.zeros(1, dtype=torch.float64))
        return float((gained * self.right / self.answered).sum() / self.positive)

    @property
    def best_threshold(self) -> float:
        """The score above which answering yes has the highest F1, midway between those of two examples; of several the
        highest. 0 where no example is true."""
        if not (self.finite and self.positive):
            return 0.0
        f1 = 2 * self.right / (self.answered + self.positive)
        place = int(f1.argmax())
        low = float(self.scores[place])
        below = float(self.scores[place + 1]) if place + 1 < len(self.scores) else low - 2.0
        return below + (low - below) / 2
