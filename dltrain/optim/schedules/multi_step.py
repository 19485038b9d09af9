"""Drops at given times."""

from __future__ import annotations

import bisect
from typing import Literal

from pydantic import ValidationInfo, field_validator, model_validator

from dltrain.config import Positive, PositiveInt, reject
from dltrain.optim.schedules.base import Drop, LearningRate, Schedule, drop_after_warmup, never_reached, one_unit


class MultiStep(Schedule):
    """The learning rate times `gamma` at each of the given times, counted from the start of the training."""

    source = "https://arxiv.org/abs/1512.03385"
    example = {"epochs": [4.0, 8.0]}
    fact = {39: 1.0, 40: 0.1, 79: 0.1, 80: 0.01}
    name: Literal["multi_step"] = "multi_step"
    epochs: list[Positive] | None = None
    """The epochs after which it drops, rising: [80, 120]. Either this or `steps`."""
    steps: list[PositiveInt] | None = None
    """The optimizer steps after which it drops, rising: [32000, 48000]."""
    gamma: Drop = 0.1
    """Factor of each drop."""

    @field_validator("epochs", "steps")
    @classmethod
    def _rising(cls, times: list[float] | None, info: ValidationInfo) -> list[float] | None:
        key = str(info.field_name)
        if times is not None and not times:
            raise reject(key, f"`{key}` is empty: it lists when the learning rate drops; `constant` never drops it")
        if times is not None and times != sorted(times):
            raise reject(key, f"the times in `{key}` must rise: {', '.join(f'{t:g}' for t in sorted(times))}")
        return times

    @model_validator(mode="after")
    def _agree(self) -> MultiStep:
        one_unit(self, self.epochs, self.steps, "schedule `multi_step`", "`epochs: [80, 120]`", "`steps: [32000]`")
        return self

    def _milestones(self, steps_per_epoch: int) -> list[int]:
        return list(self.steps or [round(epoch * steps_per_epoch) for epoch in self.epochs or []])

    def after_warmup(self, lr: float, start: int, total_steps: int, steps_per_epoch: int) -> LearningRate:
        milestones = self._milestones(steps_per_epoch)
        drop_after_warmup(milestones[0], start)
        return lambda step: lr * self.gamma ** bisect.bisect_right(milestones, step)

    def remarks(self, total_steps: int, steps_per_epoch: int) -> list[str]:
        return never_reached(self._milestones(steps_per_epoch), total_steps)
