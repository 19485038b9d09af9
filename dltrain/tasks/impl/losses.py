"""Losses per example, computed in float32 (float64 stays). Imports torch: import it where a training is built.

logits_bk: (B, K). targets: (B,) int64 class indices, or (B, K) float rows that sum to 1. Results: (B,).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CrossEntropyLoss(nn.Module):
    """w_y (logsumexp(o) - o_y), with label smoothing: target (1 - e) onehot + e / K, each class with its weight."""

    weights: Tensor | None

    def __init__(self, label_smoothing: float = 0.0, weights: list[float] | None = None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.register_buffer("weights", None if weights is None else torch.tensor(weights), persistent=False)

    def forward(self, logits_bk: Tensor, targets: Tensor) -> Tensor:
        logits_bk, targets = precise(logits_bk, targets)
        weights = None if self.weights is None else self.weights.to(logits_bk.dtype)
        return F.cross_entropy(
            logits_bk, targets, weight=weights, reduction="none", label_smoothing=self.label_smoothing
        )

    def weights_of(self, targets: Tensor) -> Tensor | None:
        """The weight (B,) of each example, of mixed classes their mean; None where all weigh the same."""
        if self.weights is None:
            return None
        return targets @ self.weights.to(targets.dtype) if targets.is_floating_point() else self.weights[targets]


class JensenShannonLoss(nn.Module):
    """Cross-entropy of the first view plus weight * mean_v KL(p_v | mean_v p_v), the same number for each view.

    Rows are the views of the first example, then those of the second, and so on. At the same logits in all views
    the divergence is 0.
    """

    def __init__(self, weight: float = 12.0, label_smoothing: float = 0.0, views: int = 3) -> None:
        super().__init__()
        self.weight, self.label_smoothing, self.views = weight, label_smoothing, views

    def forward(self, logits_bk: Tensor, targets: Tensor) -> Tensor:
        logits_bk, targets = precise(logits_bk, targets)
        first = F.cross_entropy(
            logits_bk[:: self.views], targets[:: self.views], reduction="none", label_smoothing=self.label_smoothing
        )
        log_p = F.log_softmax(logits_bk, dim=1).view(-1, self.views, logits_bk.shape[1])
        log_mean = torch.logsumexp(log_p, dim=1, keepdim=True) - math.log(self.views)
        divergence = (log_p.exp() * (log_p - log_mean)).sum(2).mean(1)
        losses: Tensor = first + self.weight * divergence
        return losses.repeat_interleave(self.views)


class FocalLoss(nn.Module):
    """sum_k q_k a_k (1 - p_k)^gamma (-log p_k) with p = softmax(o): for a class index, its term alone."""

    alpha: Tensor | None

    def __init__(self, gamma: float = 2.0, alpha: list[float] | None = None) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("alpha", None if alpha is None else torch.tensor(alpha), persistent=False)

    def forward(self, logits_bk: Tensor, targets: Tensor) -> Tensor:
        logits_bk, targets = precise(logits_bk, targets)
        log_p = F.log_softmax(logits_bk, dim=1)
        # 1 - p as -expm1(log p): exact for p near 1. The floor keeps the power's gradient finite at p = 1.
        rest = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        terms_bk = -(rest**self.gamma) * log_p
        if self.alpha is not None:
            terms_bk = terms_bk * self.alpha.to(terms_bk.dtype)
        if targets.is_floating_point():
            return (targets * terms_bk).sum(dim=1)
        return terms_bk.gather(1, targets[:, None])[:, 0]


class SigmoidFocalLoss(nn.Module):
    """Per class a |q - p|^gamma (max(o, 0) - o q + log(1 + e^-|o|)), averaged; p = sigmoid(o), q the target.

    a = alpha q + (1 - alpha) (1 - q), or 1 when alpha is None.
    """

    def __init__(self, gamma: float = 2.0, alpha: float | None = None) -> None:
        super().__init__()
        self.gamma, self.alpha = gamma, alpha

    def forward(self, logits_bk: Tensor, targets: Tensor) -> Tensor:
        logits_bk, targets = precise(logits_bk, targets)
        targets_bk = _per_class(logits_bk, targets)
        terms_bk = F.binary_cross_entropy_with_logits(logits_bk, targets_bk, reduction="none")
        # The floor keeps the power's gradient finite where the answer is exact.
        error_bk = (targets_bk - logits_bk.sigmoid()).abs().clamp_min(torch.finfo(logits_bk.dtype).tiny)
        terms_bk = error_bk**self.gamma * terms_bk
        if self.alpha is not None:
            terms_bk = terms_bk * (self.alpha * targets_bk + (1 - self.alpha) * (1 - targets_bk))
        return terms_bk.mean(dim=1)


class BinaryCrossEntropyLoss(nn.Module):
    """Per class max(o, 0) - o q + log(1 + e^-|o|), averaged over classes; q = (1 - e) target + e / K.

    pos_weight: what the part of q counts against that of 1 - q, as torch has it.
    """

    pos_weight: Tensor | None

    def __init__(self, label_smoothing: float = 0.0, pos_weight: float | list[float] | None = None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.register_buffer("pos_weight", _weight(pos_weight), persistent=False)

    def forward(self, logits_bk: Tensor, targets: Tensor) -> Tensor:
        logits_bk, targets = precise(logits_bk, targets)
        smooth, classes = self.label_smoothing, logits_bk.shape[1]
        targets_bk = _per_class(logits_bk, targets) * (1 - smooth) + smooth / classes
        weight = None if self.pos_weight is None else self.pos_weight.to(logits_bk.dtype)
        return F.binary_cross_entropy_with_logits(logits_bk, targets_bk, reduction="none", pos_weight=weight).mean(
            dim=1
        )


class MistakesLoss(nn.Module):
    """(y - t) o with the answer y = 1 if o > 0 else 0, which is |o| at mistakes; the mean over the questions.

    outputs: (B, K). targets: (B, K), 0 or 1. The gradient by an output is (y - t) / K, at o = 0 too.
    """

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        outputs, targets = precise(outputs, targets)
        wrong = (outputs.detach() > 0).to(outputs.dtype) - targets
        return (wrong * outputs).mean(1)


class MeanSquaredErrorLoss(nn.Module):
    """factor * sum_k q_k mean_j (o_j - [j = k])^2: for a class index, the mean squared error from its one-hot row."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits_bk: Tensor, targets: Tensor) -> Tensor:
        logits_bk, targets = precise(logits_bk, targets)
        targets_bk = _per_class(logits_bk, targets)
        return self.factor * (logits_bk.square() + targets_bk * (1 - 2 * logits_bk)).mean(dim=1)


class ValueCrossEntropyLoss(nn.Module):
    """max(o, 0) - o q + log(1 + e^-|o|), the mean over the values of an example; q = (1 - e) x + e / 2.

    outputs: (B, ...) logits. targets: (B, ...), x in 0..1. pos_weight: as above.
    """

    pos_weight: Tensor | None

    def __init__(self, label_smoothing: float = 0.0, pos_weight: float | list[float] | None = None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.register_buffer("pos_weight", _weight(pos_weight), persistent=False)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        outputs, targets = precise(outputs, targets)
        targets = targets * (1 - self.label_smoothing) + self.label_smoothing / 2
        weight = None if self.pos_weight is None else self.pos_weight.to(outputs.dtype)
        losses = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none", pos_weight=weight)
        return losses.flatten(1).mean(1)


class ValueSquaredErrorLoss(nn.Module):
    """(o - x)^2, the mean over the values or numbers of an example, or half of the sum. outputs, targets: (B, ...)."""

    def __init__(self, *, half_sum: bool = False) -> None:
        super().__init__()
        self.half_sum = half_sum

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        outputs, targets = precise(outputs, targets)
        squares = (outputs - targets).square().flatten(1)
        return squares.sum(1) / 2 if self.half_sum else squares.mean(1)


def _weight(weight: float | list[float] | None) -> Tensor | None:
    return None if weight is None else torch.tensor(weight)


def _per_class(logits_bk: Tensor, targets: Tensor) -> Tensor:
    """Rows of shares. Not by one_hot, which on a CPU looks at its labels."""
    if targets.is_floating_point():
        return targets
    return torch.zeros_like(logits_bk).scatter(1, targets[:, None], 1.0)


def precise(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32 at least; targets that are classes stay."""
    outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
    return outputs, targets.to(outputs.dtype) if targets.is_floating_point() else targets
