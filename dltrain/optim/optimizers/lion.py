"""Lion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from dltrain.config import Fraction, Positive
from dltrain.optim.optimizers.base import Optimizer, check_betas
from dltrain.optim.optimizers.forms import kernels, ready

if TYPE_CHECKING:
    import torch


class Lion(Optimizer):
    """Every weight moves by exactly lr against the sign of 0.9 m + 0.1 g; then m = 0.99 m + 0.01 g."""

    source = "https://arxiv.org/abs/2302.06675"
    name: Literal["lion"] = "lion"
    lr: Positive = 1e-4
    """Peak learning rate, 3 to 10 times less than AdamW's; the schedule scales it."""
    betas: list[Fraction] = [0.9, 0.99]
    """Share of the mean gradient in the step, and share of it that is kept."""

    @field_validator("betas")
    @classmethod
    def _two(cls, betas: list[float]) -> list[float]:
        return check_betas(betas)

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from timm.optim.lion import Lion

        betas = (self.betas[0], self.betas[1])
        return ready(Lion(groups, lr=self.lr, betas=betas, weight_decay=self.weight_decay, **kernels(device, ())))

    def first_step(self, w: float, g: float) -> float:
        sign = (g > 0) - (g < 0)
        return w * (1 - self.lr * self.weight_decay) - self.lr * sign
