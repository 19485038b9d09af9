"""NovoGrad."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from dltrain.config import Fraction, Positive
from dltrain.optim.optimizers.base import Optimizer, check_betas
from dltrain.optim.optimizers.forms import kernels, ready

if TYPE_CHECKING:
    import torch


class NovoGrad(Optimizer):
    """Momentum of gradients that are divided by the running length of each tensor's gradient; little memory."""

    source = "https://arxiv.org/abs/1905.11286"
    name: Literal["novograd"] = "novograd"
    lr: Positive = 1e-2
    """Peak learning rate: how far a tensor moves in a step, about."""
    betas: list[Fraction] = [0.95, 0.98]
    """Shares of the mean gradient and of its mean squared length that are kept."""
    eps: Positive = 1e-8
    """Added to the length."""

    @field_validator("betas")
    @classmethod
    def _two(cls, betas: list[float]) -> list[float]:
        return check_betas(betas)

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from pytorch_optimizer import NovoGrad

        betas = (self.betas[0], self.betas[1])
        options = kernels(device, ())
        return ready(NovoGrad(groups, lr=self.lr, betas=betas, eps=self.eps, weight_decay=self.weight_decay, **options))

    def first_step(self, w: float, g: float) -> float:
        return w - self.lr * (g / (abs(g) + self.eps) + self.weight_decay * w)
