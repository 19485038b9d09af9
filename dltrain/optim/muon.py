"""Muon for matrices, AdamW for the rest, as one torch optimizer. Imports torch: import it where a training is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

A, B, C = 3.4445, -4.775, 2.0315
"""The coefficients of the iteration: steep at 0, so that five steps are enough (Jordan 2024)."""


def orthogonalize(matrix: Tensor, steps: int) -> Tensor:
    """(n, m) -> (n, m) in the matrix's type: the same singular vectors, with singular values in about 0.7 to 1.2."""
    x: Tensor = matrix.bfloat16() if matrix.is_cuda else matrix
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = A * x + (B * square + C * square @ square) @ x
    return (x.mT if tall else x).to(matrix.dtype)


class MuonWithAdamW(torch.optim.Optimizer):
    """Groups with `matrix: true` are updated by Muon, the others by AdamW with `lr` times `adamw_scale`.

    A step never waits for the device: the number of steps is counted on the host.
    """

    def __init__(
        self, groups: list[dict[str, Any]], lr: float, momentum: float, nesterov: bool, ns_steps: int,
        adamw_scale: float, adamw_betas: tuple[float, float], eps: float, weight_decay: float,
    ) -> None:  # fmt: skip
        defaults = {
            "lr": lr, "momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps, "adamw_scale": adamw_scale,
            "adamw_betas": adamw_betas, "eps": eps, "weight_decay": weight_decay, "matrix": False,
        }  # fmt: skip
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    (self._muon if group["matrix"] else self._adamw)(group, parameter, parameter.grad)

    def _muon(self, group: dict[str, Any], weight: Tensor, gradient: Tensor) -> None:
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        mean = state["momentum"].mul_(group["momentum"]).add_(gradient)
        update = gradient.add(mean, alpha=group["momentum"]) if group["nesterov"] else mean
        matrix = orthogonalize(update.flatten(1), group["ns_steps"])
        n, m = matrix.shape
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(matrix.view(weight.shape), alpha=-group["lr"] * max(1.0, n / m) ** 0.5)

    def _adamw(self, group: dict[str, Any], weight: Tensor, gradient: Tensor) -> None:
        state, (beta1, beta2) = self.state[weight], group["adamw_betas"]
        if "step" not in state:
            state.update(step=0, mean=torch.zeros_like(weight), square=torch.zeros_like(weight))
        state["step"] += 1
        lr = group["lr"] * group["adamw_scale"]
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (state["square"] / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
        weight.mul_(1 - lr * group["weight_decay"])
        weight.addcdiv_(state["mean"], root, value=-lr / (1 - beta1 ** state["step"]))
