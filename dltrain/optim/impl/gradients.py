"""Estimates of a gradient from forward passes. Imports torch: import it where a training is built."""

from __future__ import annotations

import importlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from dltrain.tasks.impl.meters import wide_type

Draw = Callable[[Tensor, torch.Generator], Tensor]
"""Makes a random tensor like another one."""


def normal(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers."""
    return torch.empty_like(weight).normal_(generator=generator)


def signs(weight: Tensor, generator: torch.Generator) -> Tensor:
    """1 and -1, each as often (Rademacher)."""
    return torch.empty_like(weight).bernoulli_(0.5, generator=generator).mul_(2).sub_(1)


@dataclass(frozen=True)
class Direction:
    """A random direction in the space of the weights. Each iteration draws it anew, and the same: z beside each w."""

    weights: Mapping[str, Tensor]
    seed: int
    draw: Draw

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator: torch.Generator | None = None
        for weight in self.weights.values():
            generator = generator or torch.Generator(weight.device).manual_seed(self.seed)
            yield weight, self.draw(weight, generator)


class Pass(Protocol):
    """One evaluation of the same batch with the same noise."""

    def __call__(self, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """The summands of the loss (B,). weights: by name, in the place of the network's own."""


class Estimator(ABC):
    """Estimates the gradient of a loss, the mean of its summands, at the network's weights."""

    def __init__(self, directions: int) -> None:
        self.directions = directions

    def gradients(
        self, weights: Mapping[str, Tensor], evaluate: Pass, seeds: Sequence[int], mean: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """The estimate by name, averaged over a direction for each of `seeds`. No graph for a backward pass is made.

        mean: of a number (), over all processes that share the batch.
        """
        found: dict[str, Tensor] = {}
        with torch.no_grad():
            for seed in seeds:
                slope, direction = self._along(weights, evaluate, seed)
                factor = mean(slope) / len(seeds)
                for name, (_, z) in zip(weights, direction, strict=True):
                    z.mul_(factor)
                    found[name] = z if name not in found else found[name].add_(z)
        return found

    @abstractmethod
    def _along(
        self, weights: Mapping[str, Tensor], evaluate: Pass, seed: int
    ) -> tuple[Tensor, Sequence[tuple[Tensor, Tensor]] | Direction]:
        """The derivative of the loss () in a random direction, and the direction as pairs (w, z)."""


class ForwardMode(Estimator):
    """(g v) v by a forward-mode pass: each tensor has its derivative in the direction v beside it."""

    def _along(
        self, weights: Mapping[str, Tensor], evaluate: Pass, seed: int
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        direction = list(Direction(weights, seed, normal))
        with forward_mode():
            duals = {
                name: forward_ad.make_dual(weight.detach(), z)  # type: ignore[no-untyped-call]
                for name, (weight, z) in zip(weights, direction, strict=True)
            }
            losses = evaluate(duals)
            slope = forward_ad.unpack_dual(losses).tangent  # type: ignore[no-untyped-call]
        return _mean(torch.zeros_like(losses) if slope is None else slope), direction


class TwoPoints(Estimator):
    """(L(w + e z) - L(w - e z)) / (2 e) z, with weights that are moved in place.

    keep: whether a copy of them brings them back exactly; otherwise they are moved back, and rounding stays.
    """

    def __init__(self, directions: int, perturbation: float, draw: Draw, *, keep: bool) -> None:
        super().__init__(directions)
        self.perturbation, self.draw, self.keep = perturbation, draw, keep

    def _along(self, weights: Mapping[str, Tensor], evaluate: Pass, seed: int) -> tuple[Tensor, Direction]:
        direction, distance = Direction(weights, seed, self.draw), self.perturbation
        kept = [weight.clone() for weight in weights.values()] if self.keep else []

        def move(by: float) -> None:
            for weight, z in direction:
                weight.add_(z, alpha=by)

        move(distance)
        above = evaluate()
        move(-2 * distance)
        below = evaluate()
        if self.keep:
            for weight, before in zip(weights.values(), kept, strict=True):
                weight.copy_(before)
        else:
            move(distance)
        return _mean(above - below) / (2 * distance), direction


def _mean(values: Tensor) -> Tensor:
    return values.to(wide_type(values.device)).mean()


@contextmanager
def forward_mode() -> Iterator[None]:
    """In this context tensors may have derivatives beside them. Attention takes a kernel that has some."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's formulas use what torch itself deprecates
        importlib.import_module("torch._decomp.decompositions_for_jvp")
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(forward_ad.dual_level())
        yield


def central_difference(value: Callable[[], Any], weight: Tensor, index: int, step: float) -> Any:
    """(f(w + h) - f(w - h)) / (2 h) in one coordinate of a contiguous tensor, which is put back exactly."""
    above, below = (moved(value, weight, index, by) for by in (step, -step))
    return (above - below) / (2 * step)


def moved(value: Callable[[], Any], weight: Tensor, index: int, by: float) -> Any:
    """f with one coordinate of a contiguous tensor moved, which is put back exactly."""
    flat = weight.detach().view(-1)
    before = flat[index].clone()
    flat[index] += by
    try:
        return value()
    finally:
        flat[index] = before
