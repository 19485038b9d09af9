"""Schedules that can go on: with restarts, without an end in sight, or with an end that is decided late."""

from __future__ import annotations

import bisect
import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dltrain.config import ConfigError, Diagnostic, Positive, PositiveInt
from dltrain.optim.base import LearningRate, Schedule, one_unit, to_steps
from dltrain.optim.schedules import Share, ToEnd


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


class WSD(ToEnd):
    """Warm-up, stable, decay: `lr` is kept, and falls to the end value over the last share of the training."""

    source = "https://arxiv.org/abs/2404.06395"
    fact = {96: 1.0, 108: 0.2928932, 120: 0.0}
    name: Literal["wsd"] = "wsd"
    decay: Share = 0.2
    """Share of all steps over which it falls; 0.1 to 0.2 is usual."""
    shape: Literal["one_minus_sqrt", "linear"] = "one_minus_sqrt"
    """How it falls over the time u = 0..1 of the decay: 1 - sqrt(u), fast at first (2405.18392), or 1 - u."""

    def remaining(self, progress: float) -> float:
        return 1 - (math.sqrt(progress) if self.shape == "one_minus_sqrt" else progress)

    def after_warmup(self, lr: float, start: int, total_steps: int, steps_per_epoch: int) -> LearningRate:
        span = max(round(self.decay * total_steps), 1)
        begin = total_steps - span
        if begin < start:
            message = f"the warm-up ends at step {start}, after the decay should begin (step {begin})"
            raise ConfigError([Diagnostic(message, notes=("shorten `schedule.warmup` or `schedule.decay`",))])
        end = self.end_lr if self.end_lr is not None else lr * (self.end or 0.0)
        return lambda step: lr if step <= begin else end + (lr - end) * self.remaining((step - begin) / span)
