"""The learning rate that never changes."""

from __future__ import annotations

from typing import Literal

from dltrain.optim.schedules.base import LearningRate, Schedule


class Constant(Schedule):
    """The same learning rate throughout."""

    fact = {0: 1.0, 119: 1.0}
    name: Literal["constant"] = "constant"

    def after_warmup(self, lr: float, start: int, total_steps: int, steps_per_epoch: int) -> LearningRate:
        return lambda step: lr
