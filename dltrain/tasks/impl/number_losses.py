"""Losses of numbers per example, computed in float32 (float64 stays). Imports torch.

outputs, targets: (B, n) or (B, ...), with the same shape. Results: (B,).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from dltrain.tasks.impl.losses import precise


class DistancesLoss(nn.Module):
    """mean |o - t|."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        outputs, targets = precise(outputs, targets)
        return (outputs - targets).abs().flatten(1).mean(1)


class HuberLoss(nn.Module):
    """torch's, the mean over the numbers of an example."""

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        self.delta = delta

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        outputs, targets = precise(outputs, targets)
        return F.huber_loss(outputs, targets, reduction="none", delta=self.delta).flatten(1).mean(1)


class SmoothDistancesLoss(nn.Module):
    """torch's smooth L1, the mean over the numbers of an example."""

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        outputs, targets = precise(outputs, targets)
        return F.smooth_l1_loss(outputs, targets, reduction="none", beta=self.beta).flatten(1).mean(1)
