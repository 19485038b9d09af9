"""LARS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from dltrain.config import Fraction, Positive, reject
from dltrain.optim.optimizers.base import Optimizer
from dltrain.optim.optimizers.forms import kernels, ready

if TYPE_CHECKING:
    import torch


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
