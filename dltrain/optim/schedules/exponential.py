"""Exponential decay."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from dltrain.config import Positive, PositiveInt
from dltrain.optim.schedules.base import LearningRate, Schedule, Share, one_unit


class Exponential(Schedule):
    """The learning rate times `gamma` over every so many epochs, a little at each step: lr gamma^(t / s)."""

    example = {"gamma": 0.9, "epochs": 1.0}
    fact = {10: 0.9, 20: 0.81}
    name: Literal["exponential"] = "exponential"
    epochs: Positive | None = None
    """Epochs over which it falls by `gamma`; fractions allowed. Either this or `steps`."""
    steps: PositiveInt | None = None
    """Optimizer steps over which it falls by `gamma`."""
    gamma: Share
    """Factor over that time: 0.98 with `epochs: 1`."""

    @model_validator(mode="after")
    def _agree(self) -> Exponential:
        one_unit(self, self.epochs, self.steps, "schedule `exponential`", "`epochs: 1`", "`steps: 1000`")
        return self

    def after_warmup(self, lr: float, start: int, total_steps: int, steps_per_epoch: int) -> LearningRate:
        # Not rounded to whole steps: gamma holds exactly over the epochs given.
        span = self.steps if self.steps is not None else (self.epochs or 1.0) * steps_per_epoch
        return lambda step: lr * self.gamma ** ((step - start) / span)
