"""Adam with decoupled weight decay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from dltrain.config import NonNegative
from dltrain.optim.optimizers.base import AdamOptions
from dltrain.optim.optimizers.forms import ready

if TYPE_CHECKING:
    import torch


class AdamW(AdamOptions):
    """Adam with weight decay apart from the gradient: w -= lr weight_decay w, then Adam's step."""

    source = "https://arxiv.org/abs/1711.05101"
    name: Literal["adamw"] = "adamw"
    weight_decay: NonNegative = 0.01
    """Share of the weight, times lr, that is taken off at each step."""

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from torch.optim import AdamW as TorchAdamW

        return ready(TorchAdamW(groups, **self._arguments(device)))

    def first_step(self, w: float, g: float) -> float:
        return w * (1 - self.lr * self.weight_decay) - self.lr * g / (abs(g) + self.eps)
