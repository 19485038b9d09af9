"""Optimizers that scale the step of each tensor, or keep less than a number for each weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator, model_validator

from dltrain.config import Fraction, NonNegative, Positive, reject
from dltrain.optim.base import Optimizer
from dltrain.optim.optimizers import check_betas, kernels, ready

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


class LARS(Optimizer):
    """SGD whose rate is scaled for each tensor by trust_coeff |w| / (|g| + weight_decay |w|), for large batches."""

    source = "https://arxiv.org/abs/1708.03888"
    trial_lr = 10.0
    name: Literal["lars"] = "lars"
    lr: Positive = 10.0
    """Peak learning rate: a tensor moves by this times `trust_coeff` of its length."""
    momentum: Fraction = 0.9
    """Share of the last update that is kept."""
    nesterov: bool = False
    """Evaluate the gradient at the look-ahead point."""
    trust_coeff: Positive = 0.001
    """How far a tensor may move, as a share of its length."""
    always_adapt: bool = True
    """Scale tensors without weight decay too; false leaves those to plain SGD."""

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from timm.optim.lars import Lars

        return ready(Lars(
            groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, weight_decay=self.weight_decay,
            trust_coeff=self.trust_coeff, always_adapt=self.always_adapt, **kernels(device, ()),
        ))  # fmt: skip

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> LARS:
        if self.nesterov and self.momentum == 0:
            raise reject("nesterov", "`nesterov` needs a `momentum` above 0")
        return self

    def first_step(self, w: float, g: float) -> float:
        step = g + self.weight_decay * w
        if self.weight_decay > 0 or self.always_adapt:
            step *= self.trust_coeff * abs(w) / (abs(g) + self.weight_decay * abs(w) + 1e-8)
        return w - self.lr * step * (1 + self.momentum if self.nesterov else 1)


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
