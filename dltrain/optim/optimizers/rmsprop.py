"""RMSprop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from dltrain.config import Fraction, Positive
from dltrain.optim.optimizers.base import Optimizer
from dltrain.optim.optimizers.forms import kernels, ready

if TYPE_CHECKING:
    import torch


class RMSprop(Optimizer):
    """The gradient divided by the root of a running mean of its square: w -= lr g / (sqrt(v) + eps)."""

    source = "https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf"
    name: Literal["rmsprop"] = "rmsprop"
    lr: Positive = 1e-2
    """Peak learning rate; the schedule scales it."""
    alpha: Fraction = 0.99
    """Share kept of the running mean of the square (0.9 in Hinton's lecture)."""
    momentum: Fraction = 0.0
    """Share of the last update that is kept."""
    eps: Positive = 1e-8
    """Added to the root (not under it, as TensorFlow does)."""
    centered: bool = False
    """Divide by the standard deviation instead: subtract the squared running mean."""

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from torch.optim import RMSprop as TorchRMSprop

        return ready(TorchRMSprop(
            groups, lr=self.lr, alpha=self.alpha, momentum=self.momentum, eps=self.eps, centered=self.centered,
            weight_decay=self.weight_decay, **kernels(device, ()),
        ))  # fmt: skip

    def first_step(self, w: float, g: float) -> float:
        g += self.weight_decay * w
        variance = (1 - self.alpha) * g * g * (self.alpha if self.centered else 1)
        return w - self.lr * g / (math.sqrt(variance) + self.eps)
