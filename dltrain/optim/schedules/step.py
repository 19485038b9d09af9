"""Drops after equal times."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from dltrain.config import Positive, PositiveInt
from dltrain.optim.schedules.base import (
    Drop,
    LearningRate,
    Schedule,
    drop_after_warmup,
    never_reached,
    one_unit,
    to_steps,
)


class Step(Schedule):
    """The learning rate times `gamma` every so many epochs: lr gamma^floor(t / s), t from the start of training."""

    source = "https://arxiv.org/abs/1512.03385"
    example = {"epochs": 4.0}
    fact = {39: 1.0, 40: 0.1, 80: 0.01}
    name: Literal["step"] = "step"
    epochs: Positive | None = None
    """Epochs between drops; fractions allowed. Either this or `steps`."""
    steps: PositiveInt | None = None
    """Optimizer steps between drops."""
    gamma: Drop = 0.1
    """Factor of each drop."""

    @model_validator(mode="after")
    def _agree(self) -> Step:
        one_unit(self, self.epochs, self.steps, "schedule `step`", "`epochs: 30`", "`steps: 30000`")
        return self

    def after_warmup(self, lr: float, start: int, total_steps: int, steps_per_epoch: int) -> LearningRate:
        every = max(to_steps(self.epochs, self.steps, steps_per_epoch), 1)
        drop_after_warmup(every, start)
        return lambda step: lr * self.gamma ** (step // every)

    def remarks(self, total_steps: int, steps_per_epoch: int) -> list[str]:
        every = to_steps(self.epochs, self.steps, steps_per_epoch)
        return never_reached([every], total_steps)
