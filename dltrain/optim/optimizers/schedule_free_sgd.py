"""Gradient descent without a schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from dltrain.config import NonNegative, Positive
from dltrain.optim.optimizers.base import Inner, ScheduleFree
from dltrain.optim.optimizers.forms import kernels, ready

if TYPE_CHECKING:
    import torch


class ScheduleFreeSGD(ScheduleFree):
    """Gradient descent without a schedule: z moves against the gradient at y, and x is the mean of all z."""

    name: Literal["schedule_free_sgd"] = "schedule_free_sgd"
    lr: Positive = 1.0
    """Learning rate: 10 to 50 times that of SGD with momentum."""
    momentum: Inner = 0.9
    """b: how near to the mean the gradients are taken."""
    r: NonNegative = 0.0
    """The t-th step enters the mean with weight t^r."""
    weight_lr_power: NonNegative = 2.0
    """And with the greatest learning rate so far to this power, so that a warm-up counts less."""

    def interpolation(self) -> float:
        return self.momentum

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from pytorch_optimizer import ScheduleFreeSGD

        return ready(ScheduleFreeSGD(
            groups, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, r=self.r,
            weight_lr_power=self.weight_lr_power, **kernels(device, ()),
        ))  # fmt: skip

    def first_step(self, w: float, g: float) -> float:
        return w - self.lr * (g + self.weight_decay * w)  # all of x, y and z
