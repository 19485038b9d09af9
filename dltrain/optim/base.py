"""The kinds `Optimizer`, `Schedule` and `Average`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from dltrain.config import Choice

if TYPE_CHECKING:
    import torch
    from torch import nn

LearningRate = Callable[[int], float]
"""The learning rate of optimizer step t = 0, 1, ..., total_steps - 1: a pure function."""


class Optimizer(Choice):
    """How gradients change the weights."""

    kind: ClassVar[str] = "optimizers"

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        """The torch optimizer of parameter groups that carry their own `weight_decay`."""
        raise NotImplementedError


class Schedule(Choice):
    """The learning rate as a pure function of the step; the optimizer's `lr` is its peak."""

    kind: ClassVar[str] = "schedules"

    def build(self, lr: float, total_steps: int, steps_per_epoch: int) -> LearningRate:
        """The function of the step. Raises ConfigError when it does not fit into `total_steps`."""
        raise NotImplementedError


class Average(Choice):
    """A running average of the weights; validation, `best` and `eval` use it when it is set."""

    kind: ClassVar[str] = "averages"

    def build(self, model: nn.Module) -> Any:
        """An object with `model` (the averaged network), `update(model)`, and a state dict."""
        raise NotImplementedError
