"""The root of the time."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import model_validator

from dltrain.config import Positive, PositiveInt
from dltrain.optim.schedules.base import LearningRate, Schedule, one_unit, to_steps


class InverseSqrt(Schedule):
    """The learning rate falls with the root of the time: lr sqrt(s / (s + t)) at t steps after the warm-up.

    With s the length of the warm-up, the default, it is the schedule of the Transformer, which falls as sqrt(s / t) of
    all steps t.
    """

    source = "https://arxiv.org/abs/1706.03762"
    example = {"epochs": 2.0}
    fact = {0: 1.0, 60: 0.5}
    name: Literal["inverse_sqrt"] = "inverse_sqrt"
    epochs: Positive | None = None
    """The time s in epochs; after three times as long the learning rate is halved. Null: the warm-up's length."""
    steps: PositiveInt | None = None
    """The time s in optimizer steps."""

    @model_validator(mode="after")
    def _agree(self) -> InverseSqrt:
        if self.warmup is None or (self.epochs is not None and self.steps is not None):
            examples = ("`warmup: {epochs: 5}`", "`epochs: 5`", "`steps: 4000`")
            one_unit(self, self.epochs, self.steps, "schedule `inverse_sqrt`", *examples)
        return self

    def after_warmup(self, lr: float, start: int, total_steps: int, steps_per_epoch: int) -> LearningRate:
        given = self.epochs is not None or self.steps is not None
        scale = max(to_steps(self.epochs, self.steps, steps_per_epoch) if given else start, 1)
        return lambda step: lr * math.sqrt(scale / (scale + step - start))
