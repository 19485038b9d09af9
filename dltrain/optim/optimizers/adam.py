"""Adam."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from dltrain.optim.optimizers.base import AdamOptions
from dltrain.optim.optimizers.forms import ready

if TYPE_CHECKING:
    import torch


class Adam(AdamOptions):
    """Running means of the gradient and its square, corrected for their start at 0.

    w -= lr m / (sqrt(v) + eps). Weight decay is an L2 penalty that is scaled too; `adamw` decays apart.
    """

    source = "https://arxiv.org/abs/1412.6980"
    name: Literal["adam"] = "adam"

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from torch.optim import Adam as TorchAdam

        return ready(TorchAdam(groups, **self._arguments(device)))

    def first_step(self, w: float, g: float) -> float:
        g += self.weight_decay * w
        return w - self.lr * g / (abs(g) + self.eps)
