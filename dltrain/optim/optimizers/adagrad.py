"""AdaGrad."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from dltrain.config import NonNegative, Positive
from dltrain.optim.optimizers.base import Optimizer
from dltrain.optim.optimizers.forms import kernels, ready

if TYPE_CHECKING:
    import torch


class AdaGrad(Optimizer):
    """The gradient divided by the root of the sum of its squares so far: w -= lr g / (sqrt(v) + eps)."""

    source = "https://jmlr.org/papers/v12/duchi11a.html"
    name: Literal["adagrad"] = "adagrad"
    lr: Positive = 1e-2
    """Peak learning rate: the size of each weight's first change."""
    initial_accumulator_value: NonNegative = 0.0
    """What the sum of squares starts from."""
    eps: Positive = 1e-10
    """Added to the root, against division by 0."""

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from torch.optim import Adagrad

        return ready(Adagrad(
            groups, lr=self.lr, eps=self.eps, initial_accumulator_value=self.initial_accumulator_value,
            weight_decay=self.weight_decay, **kernels(device, ("cpu",)),
        ))  # fmt: skip

    def first_step(self, w: float, g: float) -> float:
        g += self.weight_decay * w
        return w - self.lr * g / (math.sqrt(self.initial_accumulator_value + g * g) + self.eps)
