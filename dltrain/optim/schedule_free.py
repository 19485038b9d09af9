"""Schedule-free optimizers: the learning rate is constant, and what is kept is an average of the steps."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from dltrain.config import NonNegative, Positive
from dltrain.optim.base import Optimizer
from dltrain.optim.optimizers import check_betas, kernels, ready

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dltrain.optim.impl.averages import InterpolatedAverage

Inner = Annotated[float, Field(gt=0, lt=1)]


class ScheduleFree(Optimizer):
    """What the schedule-free optimizers share: gradients are taken at y = (1 - b) z + b x, steps at z, and x, the mean
    of all z, is what is evaluated and kept.

    They take schedule `constant`, with a warm-up or without, and no other average of the weights. Batch norm's
    statistics are those of y: for a network with batch norm a `momentum` of the norm near 0.01 keeps them close.
    """

    source = "https://arxiv.org/abs/2405.15682"
    schedules: ClassVar[tuple[str, ...]] = ("constant",)

    @abstractmethod
    def interpolation(self) -> float:
        """b."""

    def average(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> InterpolatedAverage:
        from dltrain.optim.impl.averages import InterpolatedAverage

        return InterpolatedAverage(model, optimizer, self.interpolation())


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


class ScheduleFreeAdamW(ScheduleFree):
    """AdamW without a schedule: z moves by the gradient at y over the root of its mean square, x is the mean of z."""

    name: Literal["schedule_free_adamw"] = "schedule_free_adamw"
    lr: Positive = 2.5e-3
    """Learning rate: 1 to 10 times AdamW's."""
    betas: list[Inner] = [0.9, 0.999]
    """b, how near to the mean the gradients are taken; and the share of the mean square that is kept."""
    eps: Positive = 1e-8
    """Added to the root of the mean square."""
    r: NonNegative = 0.0
    """The t-th step enters the mean with weight t^r."""
    weight_lr_power: NonNegative = 2.0
    """And with the greatest learning rate so far to this power, so that a warm-up counts less."""

    @field_validator("betas")
    @classmethod
    def _two(cls, betas: list[float]) -> list[float]:
        return check_betas(betas)

    def interpolation(self) -> float:
        return self.betas[0]

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from pytorch_optimizer import ScheduleFreeAdamW

        return ready(ScheduleFreeAdamW(
            groups, lr=self.lr, betas=(self.betas[0], self.betas[1]), weight_decay=self.weight_decay, r=self.r,
            weight_lr_power=self.weight_lr_power, eps=self.eps, **kernels(device, ()),
        ))  # fmt: skip

    def first_step(self, w: float, g: float) -> float:
        return w - self.lr * (g / (abs(g) + self.eps) + self.weight_decay * w)
