"""L-BFGS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from dltrain.config import NonNegative, Positive, PositiveInt, reject
from dltrain.optim.optimizers.base import Optimizer
from dltrain.optim.optimizers.forms import ready

if TYPE_CHECKING:
    import torch


class LBFGS(Optimizer):
    """Newton's direction from the last gradients, with a line search: for small problems and large batches.

    Each step evaluates the loss of its batch several times; `training.batch_size: all` fits it.
    """

    source = "https://doi.org/10.1007/BF01589116"
    waits = True
    needs_closure = True
    trial_lr = 1.0
    name: Literal["lbfgs"] = "lbfgs"
    lr: Positive = 1.0
    """Length of the step that the line search begins with; without it, of every step."""
    max_iter: PositiveInt = 20
    """Directions tried in a step."""
    history_size: PositiveInt = 100
    """Gradients that the curvature is taken from."""
    line_search_fn: Literal["strong_wolfe"] | None = "strong_wolfe"
    """How far it goes in a direction: as the strong Wolfe conditions say, or null for `lr` alone."""
    tolerance_grad: NonNegative = 1e-7
    """A step ends when no gradient is larger."""
    tolerance_change: NonNegative = 1e-9
    """Or when the weights or the loss change by no more."""

    @model_validator(mode="after")
    def _one_group(self) -> LBFGS:
        if self.weight_decay > 0:
            raise reject("weight_decay", "`lbfgs` has no weight decay; use the penalty `l2`")
        for key in ("groups", "layer_decay", "no_decay", "sam"):
            if getattr(self, key):
                raise reject(key, f"`lbfgs` moves all weights together, and takes no `{key}`")
        return self

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from dltrain.optim.optimizers.impl.lbfgs import AnyFormatLBFGS

        return ready(AnyFormatLBFGS(
            [parameter for group in groups for parameter in group["params"]], lr=self.lr, max_iter=self.max_iter,
            history_size=self.history_size, line_search_fn=self.line_search_fn,
            tolerance_grad=self.tolerance_grad, tolerance_change=self.tolerance_change,
        ))  # fmt: skip
