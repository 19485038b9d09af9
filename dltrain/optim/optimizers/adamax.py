"""Adam with the largest gradient for a divisor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from dltrain.optim.optimizers.base import AdamVariant
from dltrain.optim.optimizers.forms import ready

if TYPE_CHECKING:
    import torch


class AdaMax(AdamVariant):
    """Adam with the largest gradient so far, fading, for the root of the mean square: u = max(beta2 u, |g| + eps)."""

    source = "https://arxiv.org/abs/1412.6980"
    name: Literal["adamax"] = "adamax"

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from torch.optim import Adamax

        return ready(Adamax(groups, **self._arguments(device)))

    def first_step(self, w: float, g: float) -> float:
        g += self.weight_decay * w
        return w - self.lr * g / (abs(g) + self.eps)
