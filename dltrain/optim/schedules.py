"""Learning-rate schedules as pure functions of the step: nothing to save, nothing to fall out of step."""

from __future__ import annotations

import bisect
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from dltrain.config import (
    ConfigError,
    Diagnostic,
    Fraction,
    NonNegative,
    Positive,
    PositiveInt,
    Probability,
    reject,
)
from dltrain.optim.base import LearningRate, Momentum, Schedule, one_unit, to_steps

Share = Annotated[float, Field(gt=0, lt=1)]
Drop = Annotated[float, Field(gt=0, le=1)]
"""What a rate is multiplied with: `lr` is its peak, so nothing above 1."""


class Constant(Schedule):
    """The same learning rate throughout."""

    fact = {0: 1.0, 119: 1.0}
    name: Literal["constant"] = "constant"

    def after_warmup(self, lr: float, start: int, total_steps: int, steps_per_epoch: int) -> LearningRate:
        return lambda step: lr


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
        _drop_after_warmup(every, start)
        return lambda step: lr * self.gamma ** (step // every)

    def remarks(self, total_steps: int, steps_per_epoch: int) -> list[str]:
        every = to_steps(self.epochs, self.steps, steps_per_epoch)
        return _never_reached([every], total_steps)


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
        _drop_after_warmup(milestones[0], start)
        return lambda step: lr * self.gamma ** bisect.bisect_right(milestones, step)

    def remarks(self, total_steps: int, steps_per_epoch: int) -> list[str]:
        return _never_reached(self._milestones(steps_per_epoch), total_steps)


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


class ToEnd(Schedule):
    """A schedule that falls from `lr` to an end value over the whole training."""

    end: Probability | None = None
    """Learning rate at the end, as a share of `lr`; 0 when neither this nor `end_lr` is given."""
    end_lr: NonNegative | None = None
    """Learning rate at the end itself, instead of a share. Not above `lr`."""

    @model_validator(mode="after")
    def _one_end(self) -> ToEnd:
        if self.end is not None and self.end_lr is not None:
            raise reject("end_lr", "`end` and `end_lr` both say where the schedule ends; keep one")
        return self

    def rates(self) -> dict[str, float]:
        return super().rates() | ({} if self.end_lr is None else {"end_lr": self.end_lr})

    @abstractmethod
    def remaining(self, progress: float) -> float:
        """The share of the way still above the end value, 1 to 0, for progress 0 to 1."""

    def after_warmup(self, lr: float, start: int, total_steps: int, steps_per_epoch: int) -> LearningRate:
        end = self.end_lr if self.end_lr is not None else lr * (self.end or 0.0)
        span = total_steps - start
        return lambda step: end + (lr - end) * self.remaining((step - start) / span)


class Cosine(ToEnd):
    """Half a cosine from `lr` down to the end value: e + (lr - e) (1 + cos(pi t / T)) / 2."""

    source = "https://arxiv.org/abs/1608.03983"
    fact = {60: 0.5, 120: 0.0}
    name: Literal["cosine"] = "cosine"

    def remaining(self, progress: float) -> float:
        return (1 + math.cos(math.pi * progress)) / 2


class Linear(ToEnd):
    """A straight line from `lr` down to the end value."""

    fact = {60: 0.5, 120: 0.0}
    name: Literal["linear"] = "linear"

    def remaining(self, progress: float) -> float:
        return 1 - progress


class Polynomial(ToEnd):
    """A power of the time that is left: e + (lr - e) (1 - t / T)^power."""

    example = {"power": 2.0}
    fact = {60: 0.25, 120: 0.0}
    name: Literal["polynomial"] = "polynomial"
    power: Positive = 1.0
    """The exponent; 1 is a straight line, 2 falls fast first."""

    def remaining(self, progress: float) -> float:
        return math.pow(1 - progress, self.power)


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


def _drop_after_warmup(drop: int, start: int) -> None:
    if drop <= start and start > 0:
        message = f"the first drop of the learning rate (step {drop}) comes before the warm-up ends (step {start})"
        raise ConfigError([Diagnostic(message, notes=("times count from the start of the training",))])


def _never_reached(drops: list[int], total_steps: int) -> list[str]:
    late = [drop for drop in drops if drop >= total_steps]
    if not late:
        return []
    what = "no drop" if len(late) == len(drops) else f"only {len(drops) - len(late)} of {len(drops)} drops"
    return [f"{what} of the learning rate happens: the training ends at step {total_steps}, before step {late[0]}"]
