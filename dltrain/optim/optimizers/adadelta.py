"""AdaDelta."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from dltrain.config import Fraction, Positive
from dltrain.optim.optimizers.base import Optimizer
from dltrain.optim.optimizers.forms import kernels, ready

if TYPE_CHECKING:
    import torch


class AdaDelta(Optimizer):
    """The gradient times root(D + eps) / root(H + eps): H and D are running means of its and the step's square.

    A step has the unit of the weight, so that `lr` 1 fits most problems, and the first steps are tiny.
    """

    source = "https://arxiv.org/abs/1212.5701"
    trial_lr = 5.0
    name: Literal["adadelta"] = "adadelta"
    lr: Positive = 1.0
    """Peak learning rate: a factor of each step."""
    rho: Fraction = 0.9
    """Share kept of both running means."""
    eps: Positive = 1e-6
    """Added under both roots: it sets the size of the first steps."""

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from torch.optim import Adadelta

        return ready(Adadelta(
            groups, lr=self.lr, rho=self.rho, eps=self.eps, weight_decay=self.weight_decay, **kernels(device, ()),
        ))  # fmt: skip

    def first_step(self, w: float, g: float) -> float:
        g += self.weight_decay * w
        return w - self.lr * math.sqrt(self.eps) / math.sqrt((1 - self.rho) * g * g + self.eps) * g
