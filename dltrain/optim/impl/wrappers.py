"""Lookahead and SAM as they run. Imports torch: import it where a training is built.

Libraries have both as optimizers around another one. Ours stand beside it, so that its groups, its form and its state
dict stay what they are, and the trainer's step shows the two passes of SAM.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import compress
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.optim.impl.averages import SlowAverage


class SlowWeights:
    """slow += alpha (fast - slow), fast = slow after every `steps` optimizer steps; they start as the weights are at
    the first step. alpha is a function of the steps done."""

    def __init__(self, model: nn.Module, steps: int, alpha: Callable[[int], float]) -> None:
        self.steps, self.alpha = steps, alpha
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self.fast = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        self.slow = {name: p.clone() for name, p in self.fast.items()}

    @torch.no_grad()
    def after_step(self, step: int, frozen: Collection[Tensor] = ()) -> None:
        """Take in the weights after optimizer step number `step` = 0, 1, ...; `frozen` ones stay as they are."""
        if (step + 1) % self.steps:
            return
        moving = [parameter not in frozen for parameter in self._parameters]
        slow, fast = list(compress(self.slow.values(), moving)), list(compress(self.fast.values(), moving))
        torch._foreach_lerp_(slow, fast, self.alpha(step + 1))
        torch._foreach_copy_(fast, slow)

    def average(self, model: nn.Module) -> SlowAverage:
        """The network with the slow weights, for evaluation."""
        return SlowAverage(model, self.slow)

    def state_dict(self) -> dict[str, Tensor]:
        """The slow weights by name."""
        return self.slow

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state_dict` returned. Raises KeyError when a weight is missing."""
        for name, slow in self.slow.items():
            slow.copy_(state[name])


class SharpnessAware:
    """Moves weights to w + rho g / |g|, where the second gradient of a step is taken, and back to exactly w.

    Buffers, such as batch norm's statistics, are put back too: the first pass alone counts.
    """

    def __init__(self, model: nn.Module, rho: float, adaptive: bool) -> None:
        self.model, self.rho, self.adaptive = model, rho, adaptive
        self.weights: Any = [p for p in model.parameters() if p.requires_grad]
        self._kept: tuple[list[Tensor], list[Tensor]] = ([], [])

    @torch.no_grad()
    def ascend(self) -> None:
        """Move along the gradients, and clear them."""
        moved: Any = [p for p in self.weights if p.grad is not None]
        gradients: Any = [p.grad for p in moved]
        self._kept = ([p.clone() for p in self.weights], [b.clone() for b in self.model.buffers()])
        if self.adaptive:
            gradients = torch._foreach_mul(gradients, torch._foreach_abs(moved))
        norm = nn.utils.get_total_norm(gradients)
        if self.adaptive:
            gradients = torch._foreach_mul(gradients, torch._foreach_abs(moved))
        torch._foreach_add_(moved, torch._foreach_mul(gradients, self.rho / (norm + 1e-12)))
        for p in moved:
            p.grad = None

    @torch.no_grad()
    def descend(self) -> None:
        """Put weights and buffers back."""
        weights, buffers = self._kept
        torch._foreach_copy_(self.weights, weights)
        for buffer, kept in zip(self.model.buffers(), buffers, strict=True):
            buffer.copy_(kept)
        self._kept = ([], [])
