"""Half cosines, one after the other."""

from __future__ import annotations

import bisect
import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dltrain.config import Positive, PositiveInt
from dltrain.optim.schedules.base import LearningRate, ToEnd, one_unit, to_steps


class CosineRestarts(ToEnd):
    """Half cosines from `lr` down to the end value, one after the other, each `factor` times as long as the last.

    SGDR: e + (lr - e) (1 + cos(pi t / T)) / 2 at t steps after the last restart, in a cycle of T steps.
    """

    source = "https://arxiv.org/abs/1608.03983"
    example = {"epochs": 4.0}
    fact = {0: 1.0, 20: 0.5, 40: 1.0, 60: 0.5, 80: 1.0}
    name: Literal["cosine_restarts"] = "cosine_restarts"
    epochs: Positive | None = None
    """Length of the first cycle in epochs; fractions allowed. Either this or `steps`."""
    steps: PositiveInt | None = None
    """Length of the first cycle in optimizer steps."""
    factor: Annotated[float, Field(ge=1)] = 1.0
    """Each cycle is this times as long as the one before; 2 doubles them."""

    @model_validator(mode="after")
    def _agree(self) -> CosineRestarts:
        one_unit(self, self.epochs, self.steps, "schedule `cosine_restarts`", "`epochs: 10`", "`steps: 5000`")
        return self

    def remaining(self, progress: float) -> float:
        return (1 + math.cos(math.pi * progress)) / 2

    def _starts(self, start: int, total_steps: int, steps_per_epoch: int) -> list[int]:
        """The first step of each cycle, and of the one that would follow the last."""
        length, starts = float(max(to_steps(self.epochs, self.steps, steps_per_epoch), 1)), [start]
        while starts[-1] < total_steps:
            starts.append(starts[-1] + round(length))
            length *= self.factor
        return starts

    def after_warmup(self, lr: float, start: int, total_steps: int, steps_per_epoch: int) -> LearningRate:
        end = self.end_lr if self.end_lr is not None else lr * (self.end or 0.0)
        starts = self._starts(start, total_steps, steps_per_epoch)

        def value(step: int) -> float:
            cycle = min(bisect.bisect_right(starts, step), len(starts) - 1)
            first, next_first = starts[cycle - 1], starts[cycle]
            return end + (lr - end) * self.remaining((step - first) / (next_first - first))

        return value

    def remarks(self, total_steps: int, steps_per_epoch: int) -> list[str]:
        start = self.warmup.length(steps_per_epoch) if self.warmup is not None else 0
        *_, first, end = [start, *self._starts(start, total_steps, steps_per_epoch)]
        if end <= total_steps:
            return []
        return [f"the training ends after {total_steps - first} of the {end - first} steps of the last cycle"]
