"""Stochastic gradient descent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from dltrain.config import Fraction, Positive, Probability, reject
from dltrain.optim.optimizers.base import Optimizer
from dltrain.optim.optimizers.forms import FUSED_EVERYWHERE, kernels, ready, start_momentum

if TYPE_CHECKING:
    import torch


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum and Nesterov's look-ahead as options.

    The form of torch: v = momentum v + g; w -= lr v (Nesterov: w -= lr (g + momentum v)).
    """

    source = "https://proceedings.mlr.press/v28/sutskever13.html"
    name: Literal["sgd"] = "sgd"
    lr: Positive = 0.1
    """Peak learning rate; the schedule scales it."""
    momentum: Fraction = 0.0
    """Share of the last update that is kept; 0.9 is usual."""
    dampening: Probability = 0.0
    """The gradient enters the momentum times 1 - dampening."""
    nesterov: bool = False
    """Use the gradient at the look-ahead point; needs momentum."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> SGD:
        if self.nesterov and self.momentum == 0:
            raise reject("nesterov", "`nesterov` needs `momentum` > 0: there is nothing to look ahead with")
        if self.nesterov and self.dampening > 0:
            raise reject("dampening", "`dampening` must be 0 with `nesterov`")
        return self

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from torch.optim import SGD as TorchSGD

        optimizer = TorchSGD(
            groups, lr=self.lr, momentum=self.momentum, dampening=self.dampening, weight_decay=self.weight_decay,
            nesterov=self.nesterov, **kernels(device, () if self.dampening else FUSED_EVERYWHERE),
        )  # fmt: skip
        if self.momentum:
            start_momentum(optimizer)
        return ready(optimizer)

    def first_step(self, w: float, g: float) -> float:
        return w - self.lr * (g + self.weight_decay * w) * (1 + self.momentum * self.nesterov)
