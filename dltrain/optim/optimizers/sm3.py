"""SM3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from dltrain.config import Fraction, Positive, reject
from dltrain.optim.optimizers.base import Optimizer
from dltrain.optim.optimizers.forms import kernels, ready

if TYPE_CHECKING:
    import torch


class SM3(Optimizer):
    """AdaGrad with the sums of squares kept by row and column only: n + m numbers for a matrix of n x m."""

    source = "https://arxiv.org/abs/1901.11150"
    name: Literal["sm3"] = "sm3"
    lr: Positive = 0.1
    """Peak learning rate; the schedule scales it."""
    momentum: Fraction = 0.9
    """Share of the mean update that is kept."""

    @model_validator(mode="after")
    def _no_decay(self) -> SM3:
        if self.weight_decay > 0:
            raise reject("weight_decay", "`sm3` has no weight decay; use a penalty")
        return self

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from pytorch_optimizer import SM3

        return ready(SM3(groups, lr=self.lr, momentum=self.momentum, **kernels(device, ())))

    def first_step(self, w: float, g: float) -> float:
        return w - self.lr * (1 - self.momentum) * g / abs(g)
