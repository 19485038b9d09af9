"""Weight averages as they run. Imports torch: import it where a training is built."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.layers.impl.statistics import averaging_layers

Pairs = dict[str, tuple[list[Tensor], list[Tensor]]]
"""Tensors of an average beside those that it follows, by what is done with them."""


class Running:
    """What the averages have in common."""

    def needs_statistics(self, step: int, epoch: int) -> bool:
        """Whether statistics of batches must be measured anew after `step` steps, at the end of an epoch of so many."""
        return False


class ExponentialAverage(Running):
    """a = decay a + (1 - decay) w for the parameters of a network; buffers are copied.

    `model` is the averaged network, a copy in evaluation mode that starts from the weights as they are. Pass
    the network itself, not a compiled wrapper. An update is a few kernels for all tensors together and never
    waits for the device. (torch's AveragedModel reads its counter from the device at every update.)
    """

    def __init__(self, model: nn.Module, decay: float, update_every: int = 1, warmup: bool = False) -> None:
        self.model = _copy(model)
        self.decay, self.update_every, self.warmup = decay, update_every, warmup
        self._source = model
        self._pairs: Pairs | None = None

    @torch.no_grad()
    def after_step(self, step: int, frozen: Collection[Tensor] = ()) -> None:
        """Take in the weights after optimizer step number `step` = 0, 1, ...."""
        if (step + 1) % self.update_every:
            return
        if self._pairs is None:  # walking the module tree takes longer than the update
            self._pairs = _pair(self.model, self._source)
        decay = min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
        averaged, current = self._pairs["average"]
        if averaged:
            torch._foreach_lerp_(averaged, _like(current, averaged), 1 - decay**self.update_every)
        averaged, current = self._pairs["copy"]
        if averaged:
            torch._foreach_copy_(averaged, current)

    def state_dict(self) -> dict[str, Any]:
        """The averaged network's tensors. How often it was updated follows from the step."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.model.load_state_dict(state)


class EqualAverage(Running):
    """The equal mean of a network's weights and floating-point buffers at certain steps; `model` is the mean.

    It takes them in after each `every` steps and after the last; before `start` steps it only copies. How many it
    has taken in follows from the step, so that there is nothing more to save.
    """

    def __init__(self, model: nn.Module, start: float, every: int, total_steps: int) -> None:
        self.model = _copy(model)
        self.start, self.every, self.total_steps = start, every, total_steps
        self._source = model
        self._pairs: Pairs | None = None
        self._measures = bool(averaging_layers(model))

    def _count(self, done: int) -> int:
        """How many sets of weights the mean is of, when those after `done` steps are in it."""
        return max(math.ceil(done / self.every) - max(math.ceil(self.start / self.every), 1) + 1, 1)

    def needs_statistics(self, step: int, epoch: int) -> bool:
        """Whether the mean has taken weights in since the last end of an epoch: a function of the step, so that it
        survives an interruption."""
        since = (step - 1) // epoch * epoch
        taken = step if step == self.total_steps else step // self.every * self.every
        return self._measures and taken > since and self._count(taken) > 1

    @torch.no_grad()
    def after_step(self, step: int, frozen: Collection[Tensor] = ()) -> None:
        """Take in the weights after optimizer step number `step` = 0, 1, ...."""
        done = step + 1
        if done % self.every and done != self.total_steps:
            return
        if self._pairs is None:
            self._pairs = _pair(self.model, self._source, buffers=True)
        count = self._count(done)
        averaged, current = self._pairs["average"]
        if averaged and count > 1:
            torch._foreach_lerp_(averaged, _like(current, averaged), 1 / count)
        elif averaged:
            torch._foreach_copy_(averaged, current)
        averaged, current = self._pairs["copy"]
        if averaged:
            torch._foreach_copy_(averaged, current)

    def state_dict(self) -> dict[str, Any]:
        """The averaged network's tensors."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.model.load_state_dict(state)


class Derived(Running):
    """An average that follows from what the training keeps in any case.

    `model` is a copy of the network with the averaged weights, in evaluation mode; it is brought up to date when it is
    asked for, so that a step costs nothing. Buffers are copied.
    """

    def __init__(self, model: nn.Module) -> None:
        self._copy, self._source = _copy(model), model

    @property
    @torch.no_grad()
    def model(self) -> nn.Module:
        """The network with the averaged weights as they are now."""
        self._bring_up_to_date()
        for buffer, current in zip(self._copy.buffers(), self._source.buffers(), strict=True):
            buffer.copy_(current)
        return self._copy

    @abstractmethod
    def _bring_up_to_date(self) -> None:
        """Set the weights of the copy."""

    def after_step(self, step: int, frozen: Collection[Tensor] = ()) -> None:
        """Nothing: it follows from what the step has changed."""

    def state_dict(self) -> dict[str, Any]:
        """The tensors of the network with the averaged weights."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing either, for the same reason."""


class InterpolatedAverage(Derived):
    """The mean x of a schedule-free optimizer's steps z, from where its gradients are taken, y = (1 - b) z + b x."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, b: float) -> None:
        super().__init__(model)
        self._optimizer, self._b = optimizer, b

    def _bring_up_to_date(self) -> None:
        for mean, y in zip(self._copy.parameters(), self._source.parameters(), strict=True):
            z = self._optimizer.state[y].get("z") if y in self._optimizer.state else None
            mean.copy_(y if z is None else torch.lerp(y, z, 1 - 1 / self._b))


class SlowAverage(Derived):
    """Lookahead's slow weights, since it is them that are evaluated (Zhang et al. 2019)."""

    def __init__(self, model: nn.Module, slow: dict[str, Tensor]) -> None:
        super().__init__(model)
        self._slow = slow

    def _bring_up_to_date(self) -> None:
        for name, parameter in self._copy.named_parameters():
            if name in self._slow:
                parameter.copy_(self._slow[name])


def _copy(model: nn.Module) -> nn.Module:
    """The network that becomes an average, in float32 where it has 16 bits: these would lose most of an update."""
    copied = copy.deepcopy(model).requires_grad_(False).eval()
    for tensor in (*copied.parameters(), *copied.buffers()):
        if tensor.dtype in (torch.float16, torch.bfloat16):
            tensor.data = tensor.data.float()
    return copied


def _like(tensors: list[Tensor], others: list[Tensor]) -> list[Tensor]:
    """The tensors in the types of the others; the same tensors where these agree."""
    return [tensor.to(other.dtype) for tensor, other in zip(tensors, others, strict=True)]


def _pair(average: nn.Module, model: nn.Module, *, buffers: bool = False) -> Pairs:
    """Tensors of the average beside the model's, by what is done with them. Frozen parameters are copied, and so
    are buffers unless those of floating-point numbers are averaged too."""
    pairs: Pairs = {"average": ([], []), "copy": ([], [])}
    both = [*zip(average.parameters(), model.parameters(), strict=True)]
    both += zip(average.buffers(), model.buffers(), strict=True)  # type: ignore[arg-type]
    for averaged, current in both:
        moves = current.requires_grad if isinstance(current, nn.Parameter) else buffers
        ours, theirs = pairs["average" if moves and current.is_floating_point() else "copy"]
        ours.append(averaged)
        theirs.append(current.detach())
    return pairs
