"""LAMB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from dltrain.config import Fraction, NonNegative, Positive
from dltrain.optim.optimizers.base import Optimizer, check_betas
from dltrain.optim.optimizers.forms import kernels, ready

if TYPE_CHECKING:
    import torch


class LAMB(Optimizer):
    """Adam's direction plus weight_decay w, scaled for each tensor to the length of its weights, for large batches."""

    source = "https://arxiv.org/abs/1904.00962"
    waits = True
    name: Literal["lamb"] = "lamb"
    lr: Positive = 1e-3
    """Peak learning rate; the schedule scales it."""
    weight_decay: NonNegative = 0.01
    """This times the weight is added to the direction."""
    betas: list[Fraction] = [0.9, 0.999]
    """Shares of the mean gradient and of the mean square that are kept."""
    eps: Positive = 1e-6
    """Added to the root of the mean square."""
    always_adapt: bool = True
    """Scale tensors without weight decay too; false leaves those to Adam."""

    @field_validator("betas")
    @classmethod
    def _two(cls, betas: list[float]) -> list[float]:
        return check_betas(betas)

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from timm.optim.lamb import Lamb

        return ready(Lamb(
            groups, lr=self.lr, betas=(self.betas[0], self.betas[1]), eps=self.eps, weight_decay=self.weight_decay,
            max_grad_norm=None, always_adapt=self.always_adapt, **kernels(device, ()),
        ))  # fmt: skip

    def first_step(self, w: float, g: float) -> float:
        step = g / (abs(g) + self.eps) + self.weight_decay * w
        if self.weight_decay > 0 or self.always_adapt:
            step *= abs(w) / abs(step)
        return w - self.lr * step
