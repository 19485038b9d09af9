"""Weight averages as they run. Imports torch: import it where a training is built."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class ExponentialAverage:
    """a = decay a + (1 - decay) w for the parameters of a network; buffers are copied.

    `model` is the averaged network, a copy in evaluation mode that starts from the weights as they are. Pass
    the network itself, not a compiled wrapper. An update is a few kernels for all tensors together and never
    waits for the device. (torch's AveragedModel reads its counter from the device at every update.)
    """

    def __init__(self, model: nn.Module, decay: float, update_every: int = 1, warmup: bool = False) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay, self.update_every, self.warmup = decay, update_every, warmup
        self._source: nn.Module | None = None
        self._pairs: dict[str, tuple[list[Tensor], list[Tensor]]] = {}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after optimizer step number `step` = 0, 1, ...."""
        if (step + 1) % self.update_every:
            return
        if model is not self._source:  # walking the module tree takes longer than the update
            self._source, self._pairs = model, _pair(self.model, model)
        decay = min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
        averaged, current = self._pairs["average"]
        if averaged:
            torch._foreach_lerp_(averaged, current, 1 - decay**self.update_every)
        averaged, current = self._pairs["copy"]
        if averaged:
            torch._foreach_copy_(averaged, current)

    def state_dict(self) -> dict[str, Any]:
        """The averaged network's tensors. How often it was updated follows from the step."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.model.load_state_dict(state)


def _pair(average: nn.Module, model: nn.Module) -> dict[str, tuple[list[Tensor], list[Tensor]]]:
    """Tensors of the average beside the model's, by what is done with them. Frozen parameters are copied."""
    pairs: dict[str, tuple[list[Tensor], list[Tensor]]] = {"average": ([], []), "copy": ([], [])}
    both = [*zip(average.parameters(), model.parameters(), strict=True)]
    both += zip(average.buffers(), model.buffers(), strict=True)  # type: ignore[arg-type]
    for averaged, current in both:
        trained = isinstance(current, nn.Parameter) and current.requires_grad and current.is_floating_point()
        ours, theirs = pairs["average" if trained else "copy"]
        ours.append(averaged)
        theirs.append(current.detach())
    return pairs
