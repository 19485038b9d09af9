"""Adam with Nesterov's look-ahead."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from dltrain.config import NonNegative
from dltrain.optim.optimizers.base import AdamVariant
from dltrain.optim.optimizers.forms import ready

if TYPE_CHECKING:
    import torch


class NAdam(AdamVariant):
    """Adam with Nesterov's look-ahead: the step takes the mean gradient as it will be after the next gradient.

    The share kept grows with the step t: mu = beta1 (1 - 0.96^(t momentum_decay) / 2).
    """

    source = "https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ"
    name: Literal["nadam"] = "nadam"
    momentum_decay: NonNegative = 4e-3
    """How fast the share that is kept of the mean gradient grows to beta1."""
    decoupled_weight_decay: bool = False
    """Shrink the weights apart from the gradient, as AdamW does."""

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from torch.optim import NAdam as TorchNAdam

        return ready(TorchNAdam(
            groups, momentum_decay=self.momentum_decay, decoupled_weight_decay=self.decoupled_weight_decay,
            **self._arguments(device),
        ))  # fmt: skip

    def first_step(self, w: float, g: float) -> float:
        if self.decoupled_weight_decay:
            w *= 1 - self.lr * self.weight_decay
        else:
            g += self.weight_decay * w
        now, after = (self.betas[0] * (1 - 0.5 * math.pow(0.96, t * self.momentum_decay)) for t in (1, 2))
        mean = g + after * (1 - self.betas[0]) * g / (1 - now * after)
        return w - self.lr * mean / (abs(g) + self.eps)
