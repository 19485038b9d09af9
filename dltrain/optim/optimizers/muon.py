"""Muon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from dltrain.config import Fraction, Positive, PositiveInt, Section
from dltrain.optim.optimizers.base import Optimizer, check_betas
from dltrain.optim.optimizers.forms import ready

if TYPE_CHECKING:
    import torch
    from torch import nn


class Rest(Section):
    """SGD with Nesterov's momentum for what is no matrix; its weight decay joins the gradient."""

    scale: Positive = 1.0
    """Its learning rate, as a share of `lr`."""
    momentum: Fraction = 0.85
    """Share of the last update that is kept."""


class Muon(Optimizer):
    """Momentum whose matrix is made orthogonal: its singular values become about 1. AdamW trains the rest.

    M = momentum M + g, then g + momentum M (or M) is divided by its norm and goes `ns_steps` times through
    X <- 3.4445 X - 4.775 X X' X + 2.0315 (X X')^2 X. A convolution's kernel is the matrix of its outputs. Weight
    decay is decoupled. All but the weights of hidden layers is trained by AdamW with lr * adamw_scale: the last layer,
    vectors, embeddings, and what `adamw` names.
    """

    source = "https://kellerjordan.github.io/posts/muon/"
    name: Literal["muon"] = "muon"
    lr: Positive = 0.02
    """Peak learning rate of the matrices: a matrix of n outputs and m inputs moves by lr sqrt(max(1, n / m))."""
    momentum: Fraction = 0.95
    """Share of the last update that is kept."""
    nesterov: bool = True
    """Use the gradient at the look-ahead point."""
    ns_steps: PositiveInt = 5
    """Steps of the iteration that makes a matrix orthogonal."""
    normalize: bool = False
    """Before each step, bring every matrix of n outputs to the norm sqrt(n): for weights whose size does not matter, as
    before a norm (https://github.com/KellerJordan/cifar10-airbench)."""
    adamw: list[str] = []
    """Patterns of more parameters that AdamW trains."""
    adamw_scale: Positive = 0.05
    """AdamW's learning rate, as a share of `lr`."""
    adamw_betas: list[Fraction] = [0.9, 0.95]
    """AdamW's share kept of the running mean of the gradient, and of its square: two numbers."""
    eps: Positive = 1e-8
    """AdamW's addition to the root, against division by 0."""
    sgd: Rest | None = None
    """Train what AdamW would train by SGD instead."""

    @field_validator("adamw_betas")
    @classmethod
    def _two(cls, betas: list[float]) -> list[float]:
        return check_betas(betas, "adamw_betas")

    def options_of(self, model: nn.Module) -> dict[str, dict[str, Any]]:
        from dltrain.optim.impl.roles import exempt, hidden_matrices

        matrices = hidden_matrices(model) - exempt(model, self.adamw)
        return {name: {"matrix": name in matrices} for name, _ in model.named_parameters()}

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from dltrain.optim.optimizers.impl.muon import MuonWithRest

        return ready(MuonWithRest(
            groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, ns_steps=self.ns_steps,
            normalize=self.normalize, adamw_scale=self.adamw_scale,
            adamw_betas=(self.adamw_betas[0], self.adamw_betas[1]), eps=self.eps, weight_decay=self.weight_decay,
            sgd=(self.sgd.scale, self.sgd.momentum) if self.sgd is not None else None,
        ))  # fmt: skip

    def first_step(self, w: float, g: float) -> float | None:
        lr = self.lr * self.adamw_scale  # a weight alone is that of the last layer
        return w * (1 - lr * self.weight_decay) - lr * g / (abs(g) + self.eps)
