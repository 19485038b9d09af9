"""Adafactor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from dltrain.config import Positive, reject
from dltrain.optim.optimizers.base import Optimizer
from dltrain.optim.optimizers.forms import ready

if TYPE_CHECKING:
    import torch


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
