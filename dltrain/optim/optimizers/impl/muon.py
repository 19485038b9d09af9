"""Muon for matrices, AdamW or SGD for the rest, as one torch optimizer.

Imports torch: import it where a training is built.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

A, B, C = 3.4445, -4.775, 2.0315
"""The coefficients of the iteration: steep at 0, so that five steps are enough (Jordan 2024)."""


def orthogonalize(matrices: Tensor, steps: int) -> Tensor:
    """(..., n, m) -> (..., n, m) in their type: the same singular vectors, with singular values in about 0.7 to 1.2."""
    x: Tensor = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = A * x + (B * square + C * square @ square) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class MuonWithRest(torch.optim.Optimizer):
    """Groups with `matrix: true` are updated by Muon; the others by AdamW with `lr` times `adamw_scale`, or by SGD with
    `lr` times a scale where `sgd` is that scale and a momentum.

    Matrices of one shape are made orthogonal together. A step never waits for the device: the number of steps is
    counted on the host.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, lr: float, momentum: float, nesterov: bool, ns_steps: int,
        normalize: bool, adamw_scale: float, adamw_betas: tuple[float, float], eps: float, weight_decay: float,
        sgd: tuple[float, float] | None,
    ) -> None:  # fmt: skip
        defaults = {
            "lr": lr, "momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps, "normalize": normalize,
            "adamw_scale": adamw_scale, "adamw_betas": adamw_betas, "eps": eps, "weight_decay": weight_decay,
            "sgd": sgd, "matrix": False,
        }  # fmt: skip
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            weights: Any = [parameter for parameter in group["params"] if parameter.grad is not None]
            gradients = [weight.grad for weight in weights]
            if not weights:
                continue
            if group["matrix"]:
                self._muon(group, weights, gradients)
            elif group["sgd"] is not None:
                self._sgd(group, weights, gradients)
            else:
                self._adamw(group, weights, gradients)

    def _muon(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor]) -> None:
        means = self._kept("momentum", weights)
        torch._foreach_mul_(means, group["momentum"])
        torch._foreach_add_(means, gradients)
        updates = torch._foreach_add(gradients, means, alpha=group["momentum"]) if group["nesterov"] else means
        if group["normalize"]:
            norms = torch._foreach_norm(weights)
            torch._foreach_div_(weights, norms)
            torch._foreach_mul_(weights, [len(weight) ** 0.5 for weight in weights])
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        alike: dict[Any, list[int]] = defaultdict(list)
        for index, update in enumerate(updates):
            alike[len(update), update.numel(), update.dtype].append(index)
        for (n, numbers, _), indices in alike.items():
            matrices = torch.stack([updates[index].flatten(1) for index in indices])
            lr = group["lr"] * max(1.0, n * n / numbers) ** 0.5
            for index, matrix in zip(indices, orthogonalize(matrices, group["ns_steps"]), strict=True):
                weights[index].add_(matrix.view(weights[index].shape), alpha=-lr)

    def _sgd(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor]) -> None:
        scale, momentum = group["sgd"]
        gradients = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
        means = self._kept("momentum", weights)
        torch._foreach_mul_(means, momentum)
        torch._foreach_add_(means, gradients)
        torch._foreach_add_(gradients, means, alpha=momentum)  # Nesterov's
        torch._foreach_add_(weights, gradients, alpha=-group["lr"] * scale)

    def _adamw(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor]) -> None:
        (beta1, beta2), lr = group["adamw_betas"], group["lr"] * group["adamw_scale"]
        means, squares = self._kept("mean", weights), self._kept("square", weights)
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
        steps = []
        for weight in weights:
            self.state[weight]["step"] = self.state[weight].get("step", 0) + 1
            steps.append(self.state[weight]["step"])
        roots = torch._foreach_div(squares, [1 - beta2**step for step in steps])
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_addcdiv_(weights, means, roots, [-lr / (1 - beta1**step) for step in steps])

    def _kept(self, name: str, weights: list[Tensor]) -> list[Tensor]:
        """A number of each weight that steps keep, at first 0."""
        for weight in weights:
            if name not in self.state[weight]:
                self.state[weight][name] = torch.zeros_like(weight)
        return [self.state[weight][name] for weight in weights]
