"""One cycle up and down."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from pydantic import model_validator

from dltrain.config import Fraction, Probability, reject
from dltrain.optim.schedules.base import Drop, LearningRate, Momentum, Schedule, Share


class OneCycle(Schedule):
    """Up to `lr` and down to almost nothing in half cosines, the momentum moving the other way.

    The values of torch's OneCycleLR: the first step has lr * start, the peak is one step before `peak` of
    the training, the last step has lr * end. It brings its own warm-up.
    """

    source = "https://arxiv.org/abs/1708.07120"
    fact = {0: 0.04, 35: 1.0, 119: 4e-6}
    name: Literal["one_cycle"] = "one_cycle"
    peak: Share = 0.3
    """Share of the training after which the learning rate is highest."""
    start: Drop = 0.04
    """First learning rate, as a share of `lr`; with 0 the first step would be wasted."""
    end: Probability = 4e-6
    """Last learning rate, as a share of `lr`."""
    cycle_momentum: bool = True
    """Move the optimizer's momentum (Adam's beta1) from high to low and back; its own setting is not used."""
    high_momentum: Fraction = 0.95
    """Momentum at the start and at the end."""
    low_momentum: Fraction = 0.85
    """Momentum at the peak of the learning rate."""

    @model_validator(mode="after")
    def _agree(self) -> OneCycle:
        if self.warmup is not None:
            raise reject("warmup", "`one_cycle` has its own warm-up: set `start` and `peak` instead")
        if self.low_momentum > self.high_momentum:
            raise reject("low_momentum", f"`low_momentum` must not be above `high_momentum` ({self.high_momentum:g})")
        return self

    def after_warmup(self, lr: float, start: int, total_steps: int, steps_per_epoch: int) -> LearningRate:
        return self._cycle(lr * self.start, lr, lr * self.end, total_steps)

    def build_momentum(self, total_steps: int, steps_per_epoch: int) -> Momentum | None:
        if not self.cycle_momentum:
            return None
        return self._cycle(self.high_momentum, self.low_momentum, self.high_momentum, total_steps)

    def _cycle(self, first: float, middle: float, last: float, total_steps: int) -> Callable[[int], float]:
        top, end = max(self.peak * total_steps - 1, 0.0), max(total_steps - 1, 1)

        def value(step: int) -> float:
            if step < top:
                return _half_cosine(first, middle, step / top)
            return _half_cosine(middle, last, (step - top) / (end - top))

        return value


def _half_cosine(first: float, last: float, progress: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
