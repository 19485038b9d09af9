"""The adaptive optimizers of torch besides Adam and its closest kin. Options bear torch's names.

Left out: Rprop (full batches only, and it ignores the learning rate after its first step), ASGD (its average is
never used; the average `swa` is), SparseAdam (sparse gradients only), LBFGS (needs the loss again and again).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from dltrain.config import Fraction, NonNegative, Positive, reject
from dltrain.optim.base import Optimizer
from dltrain.optim.optimizers import check_betas, kernels, ready

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


class AdamVariant(Optimizer):
    """The options that the variants of Adam share."""

    lr: Positive = 2e-3
    """Peak learning rate; about the size of each weight's change per step."""
    betas: list[Fraction] = [0.9, 0.999]
    """Share kept of the running mean of the gradient, and of its square or size: two numbers."""
    eps: Positive = 1e-8
    """Added to the divisor, against division by 0."""

    @field_validator("betas")
    @classmethod
    def _two(cls, betas: list[float]) -> list[float]:
        return check_betas(betas)

    def _arguments(self, device: torch.device) -> dict[str, Any]:
        return {
            "lr": self.lr, "betas": (self.betas[0], self.betas[1]), "eps": self.eps,
            "weight_decay": self.weight_decay, **kernels(device, ()),
        }  # fmt: skip


class AdaMax(AdamVariant):
    """Adam with the largest gradient so far, fading, for the root of the mean square: u = max(beta2 u, |g| + eps)."""

    source = "https://arxiv.org/abs/1412.6980"
    name: Literal["adamax"] = "adamax"

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from torch.optim import Adamax

        return ready(Adamax(groups, **self._arguments(device)))

    def first_step(self, w: float, g: float) -> float:
        g += self.weight_decay * w
        return w - self.lr * g / (abs(g) + self.eps)


class NAdam(AdamVariant):
    """Adam with Nesterov's look-ahead: the step takes the mean gradient as it will be after the next gradient.

    The share kept grows with the step t: mu = beta1 (1 - 0.96^(t momentum_decay) / 2).
    """

    source = "https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ"
    name: Literal["nadam"] = "nadam"
    momentum_decay: NonNegative = 4e-3
    """How fast the share that is kept of the mean gradient grows to beta1."""
    decoupled_weight_decay: bool = False
    """Shrink the weights apart from the gradient, as AdamW does."""

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from torch.optim import NAdam as TorchNAdam

        return ready(TorchNAdam(
            groups, momentum_decay=self.momentum_decay, decoupled_weight_decay=self.decoupled_weight_decay,
            **self._arguments(device),
        ))  # fmt: skip

    def first_step(self, w: float, g: float) -> float:
        if self.decoupled_weight_decay:
            w *= 1 - self.lr * self.weight_decay
        else:
            g += self.weight_decay * w
        now, after = (self.betas[0] * (1 - 0.5 * math.pow(0.96, t * self.momentum_decay)) for t in (1, 2))
        mean = g + after * (1 - self.betas[0]) * g / (1 - now * after)
        return w - self.lr * mean / (abs(g) + self.eps)


class RAdam(AdamVariant):
    """Adam that waits until the mean square is worth trusting: without division in the first steps, then rectified."""

    source = "https://arxiv.org/abs/1908.03265"
    name: Literal["radam"] = "radam"
    lr: Positive = 1e-3
    """Peak learning rate; about the size of each weight's change per step, after the first."""
    decoupled_weight_decay: bool = False
    """Shrink the weights apart from the gradient, as AdamW does."""

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from torch.optim import RAdam as TorchRAdam

        decoupled = self.decoupled_weight_decay
        return ready(TorchRAdam(groups, decoupled_weight_decay=decoupled, **self._arguments(device)))

    def first_step(self, w: float, g: float) -> float | None:
        if 2 / (1 - self.betas[1]) - 1 < 5:  # so short a mean is trusted at once
            return None
        if self.decoupled_weight_decay:
            return w * (1 - self.lr * self.weight_decay) - self.lr * g
        return w - self.lr * (g + self.weight_decay * w)


class Adafactor(Optimizer):
    """Adam without momentum that keeps the mean square of a matrix as its row and column sums: R C / sum R.

    The state of an n x m weight is n + m numbers. The step is relative to the weight's size, at least eps[1]; weight
    decay is decoupled. Torch reads the norms of each weight on the host at every step: slow on a GPU.
    """

    source = "https://arxiv.org/abs/1804.04235"
    waits = True
    name: Literal["adafactor"] = "adafactor"
    lr: Positive = 1e-2
    """Peak learning rate, as a share of the weight's root mean square; at step t no more than 1 / sqrt(t)."""
    beta2_decay: float = -0.8
    """The share kept of the mean square at step t is 1 - t to this power; < 0."""
    eps: list[Positive] = [1e-30, 1e-3]
    """Smallest mean square, and smallest size of a weight, that steps are relative to: two numbers."""
    d: Annotated[float, Field(ge=1)] = 1.0
    """Updates with a larger root mean square than this are scaled down to it."""

    @field_validator("beta2_decay")
    @classmethod
    def _falls(cls, power: float) -> float:
        if power >= 0:
            raise reject("beta2_decay", f"`beta2_decay` must be < 0, not {power:g}")
        return power

    @field_validator("eps")
    @classmethod
    def _two(cls, eps: list[float]) -> list[float]:
        if len(eps) != 2:
            raise reject("eps", f"`eps` are two numbers, of the mean square and of the weight's size, not {len(eps)}")
        return eps

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from torch.optim import Adafactor as TorchAdafactor

        return ready(TorchAdafactor(
            groups, lr=self.lr, beta2_decay=self.beta2_decay, eps=(self.eps[0], self.eps[1]), d=self.d,
            weight_decay=self.weight_decay, foreach=False,
        ))  # fmt: skip

    def first_step(self, w: float, g: float) -> float:
        size = max(self.eps[1], abs(w)) * min(self.lr, 1.0)
        return w * (1 - self.lr * self.weight_decay) - size * math.copysign(1.0, g)
