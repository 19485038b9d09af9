"""AdamW without a schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from dltrain.config import NonNegative, Positive
from dltrain.optim.optimizers.base import Inner, ScheduleFree, check_betas
from dltrain.optim.optimizers.forms import kernels, ready

if TYPE_CHECKING:
    import torch


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
