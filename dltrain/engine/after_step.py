"""What follows the weights, or bounds them, after each step of the optimizer: a list of parts, in an order.

    layers that count steps -> slow weights of Lookahead -> bounds of weights -> average

A part that keeps a state has it in checkpoints under its own name. A new one is a class with the methods of
`AfterStep`, and a line where the list is made; the trainer and the code of checkpoints stay as they are. Imports torch.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from torch import Tensor, nn

from dltrain.layers.impl.modules import CountsSteps
from dltrain.optim.impl.penalties import Penalties


class Stateful(Protocol):
    """What a training saves and continues from."""

    def state_dict(self) -> dict[str, Any]:
        """What the next step depends on: plain values and live tensors. Empty where there is nothing."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned; it is not called where that was empty."""


class Stateless:
    """What depends on the step alone, or keeps its state in the network."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to continue."""


class AfterStep(Stateful, Protocol):
    """One part of what happens after each step of the optimizer."""

    def after_step(self, step: int, frozen: Collection[Tensor]) -> None:
        """Optimizer step number `step` = 0, 1, ... is done; `frozen` weights did not learn in it, and must stay."""


class WeightAverage(AfterStep, Protocol):
    """A network whose weights are an average over those of the training, for evaluation."""

    @property
    def model(self) -> nn.Module:
        """That network, in evaluation mode."""

    def needs_statistics(self, step: int, epoch: int) -> bool:
        """Whether statistics of batches must be measured anew after `step` steps, at the end of an epoch of so many."""


class CountedSteps(Stateless):
    """Tells the layers that train differently as the training goes on; each counts in a buffer of its own."""

    def __init__(self, model: nn.Module) -> None:
        self._layers = [layer for layer in model.modules() if isinstance(layer, CountsSteps)]

    def after_step(self, step: int, frozen: Collection[Tensor]) -> None:
        """One more step is done."""
        for layer in self._layers:
            layer.step_done()


class Bounds(Stateless):
    """The penalties that bound weights, such as a largest norm."""

    def __init__(self, penalties: Penalties) -> None:
        self._penalties = penalties

    def after_step(self, step: int, frozen: Collection[Tensor]) -> None:
        """Change what is out of bounds in place."""
        self._penalties.bound(frozen)
