"""Rectified Adam."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from dltrain.config import Positive
from dltrain.optim.optimizers.base import AdamVariant
from dltrain.optim.optimizers.forms import ready

if TYPE_CHECKING:
    import torch


class RAdam(AdamVariant):
    """Adam that waits until the mean square is worth trusting: without division in the first steps, then rectified."""

    source = "https://arxiv.org/abs/1908.03265"
    name: Literal["radam"] = "radam"
    lr: Positive = 1e-3
    """Peak learning rate; about the size of each weight's change per step, after the first."""
    decoupled_weight_decay: bool = False
    """Shrink the weights apart from the gradient, as AdamW does."""

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from torch.optim import RAdam as TorchRAdam

        decoupled = self.decoupled_weight_decay
        return ready(TorchRAdam(groups, decoupled_weight_decay=decoupled, **self._arguments(device)))

    def first_step(self, w: float, g: float) -> float | None:
        if 2 / (1 - self.betas[1]) - 1 < 5:  # so short a mean is trusted at once
            return None
        if self.decoupled_weight_decay:
            return w * (1 - self.lr * self.weight_decay) - self.lr * g
        return w - self.lr * (g + self.weight_decay * w)
