"""The kind `Schedule`, the warm-up that every schedule can have, and what several of its entries share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field, model_validator

from dltrain.config import Choice, ConfigError, Diagnostic, NonNegative, NonNegativeInt, Probability, Section, reject
from dltrain.tasks.base import Task

S = TypeVar("S", bound=Section)

LearningRate = Callable[[int], float]
"""The learning rate of optimizer step t = 0, 1, ..., total_steps - 1: a pure function."""
Momentum = Callable[[int], float]
"""The momentum of optimizer step t, in 0..1: a pure function."""

Feedback = Callable[[list[dict[str, float]]], float]
"""A factor of the learning rate from the metrics of the epochs so far, by their tags: a pure function."""
Share = Annotated[float, Field(gt=0, lt=1)]
Drop = Annotated[float, Field(gt=0, le=1)]
"""What a rate is multiplied with: `lr` is its peak, so nothing above 1."""


class Warmup(Section):
    """The learning rate rises in a straight line to `lr` over the first steps (Goyal et al. 2017)."""

    rivals = ((("epochs",), ("steps",)), (("start",), ("start_lr",)))

    epochs: NonNegative | None = None
    """Length in epochs; fractions allowed. Either this or `steps`."""
    steps: NonNegativeInt | None = None
    """Length in optimizer steps."""
    start: Probability | None = None
    """First learning rate, as a share of `lr`. 0 or null: the line comes from 0, where it would be one step before the
    training, so that the first of n steps has lr / (n + 1) and is not wasted."""
    start_lr: NonNegative | None = None
    """First learning rate itself, instead of a share; 0 as in `start`. Not above `lr`."""

    @model_validator(mode="after")
    def _agree(self) -> Warmup:
        one_unit(self, self.epochs, self.steps, "a warm-up", "`epochs: 5`", "`steps: 500`")
        if self.start is not None and self.start_lr is not None:
            raise reject("start_lr", "`start` and `start_lr` both say where the warm-up begins; keep one")
        return self

    def length(self, steps_per_epoch: int) -> int:
        """In optimizer steps."""
        return to_steps(self.epochs, self.steps, steps_per_epoch)

    def first(self, lr: float, length: int) -> float:
        """The learning rate of step 0 of a warm-up of `length` steps: always above 0."""
        return self.start_lr or lr * (self.start or 1 / (length + 1))


class Schedule(Choice):
    """The learning rate as a pure function of the step; the optimizer's `lr` is its peak.

    Every time is called `epochs` (fractions allowed) or `steps`. Those of `step` and `multi_step` count
    from the start of the training, whether or not there is a warm-up; the other schedules run from the
    end of the warm-up to the end of the training.

    `fact` holds learning rates by step, of 120 steps in 12 epochs with `lr` 1 and the options of `example`: the
    contract test requires them.
    """

    kind: ClassVar[str] = "schedules"
    rivals = ((("epochs",), ("steps",)), (("end",), ("end_lr",)))
    example: ClassVar[dict[str, Any]] = {}
    fact: ClassVar[dict[int, float]] = {}

    name: str
    warmup: Warmup | None = None
    """A straight rise to `lr` before the schedule begins: {epochs: 5, start: 0.25}."""

    def build(self, lr: float, total_steps: int, steps_per_epoch: int) -> LearningRate:
        """The learning rate of step t in [0, total_steps). Raises ConfigError when the schedule does not fit."""
        if high := self.above_peak(lr):
            raise ConfigError(high)
        length = self.warmup.length(steps_per_epoch) if self.warmup is not None else 0
        if self.warmup is None or length == 0:
            return self.after_warmup(lr, 0, total_steps, steps_per_epoch)
        if length >= total_steps:
            message = f"the warm-up takes {length} steps, and the whole training only {total_steps}"
            raise ConfigError([Diagnostic(message, notes=("shorten `schedule.warmup`, or train longer",))])
        first, after = self.warmup.first(lr, length), self.after_warmup(lr, length, total_steps, steps_per_epoch)
        return lambda step: first + (lr - first) * step / length if step < length else after(step)

    def rates(self) -> dict[str, float]:
        """The learning rates that options give themselves, not as shares of `lr`, by the options' keys."""
        start_lr = self.warmup.start_lr if self.warmup is not None else None
        return {} if start_lr is None else {"warmup.start_lr": start_lr}

    def above_peak(self, lr: float) -> list[Diagnostic]:
        """What is wrong where `lr` is not the highest rate."""
        return [
            Diagnostic(
                f"`schedule.{key}` ({rate:g}) is above the peak, `optimizer.lr` ({lr:g})", key=key,
                notes=("a schedule lowers the learning rate from its peak, and never raises it above",),
            )
            for key, rate in self.rates().items()
            if rate > lr
        ]  # fmt: skip

    @abstractmethod
    def after_warmup(self, lr: float, start: int, total_steps: int, steps_per_epoch: int) -> LearningRate:
        """The learning rate of step t in [start, total_steps); `lr` at t = start, the end of the warm-up."""

    def build_momentum(self, total_steps: int, steps_per_epoch: int) -> Momentum | None:
        """The momentum as a function of the step, for schedules that move it; else None."""
        return None

    def build_feedback(self, lr: float, task: Task, validation: bool) -> Feedback | None:
        """What the learning rate is multiplied with besides, from the epochs so far, for schedules that watch them;
        else None. `task` says what they measure, `validation` whether there is a validation split."""
        return None

    def remarks(self, total_steps: int, steps_per_epoch: int) -> list[str]:
        """What a user would want to know before this schedule runs: legal, but hardly meant."""
        return []

    def compressed(self, ratio: float) -> Schedule:
        """A copy with every time multiplied by `ratio`: the same shape for a training of another length."""
        copy = scaled(self, ratio, least=1)
        if self.warmup is None:
            return copy
        return copy.model_copy(update={"warmup": scaled(self.warmup, ratio, least=0)})


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


def to_steps(epochs: float | None, steps: int | None, steps_per_epoch: int) -> int:
    """A time given in one of the two units, in optimizer steps."""
    return steps if steps is not None else round((epochs or 0.0) * steps_per_epoch)


def one_unit(section: Section, epochs: Any, steps: Any, what: str, *examples: str) -> None:
    """Require exactly one of `epochs` and `steps`, for a section's validator."""
    if epochs is not None and steps is not None:
        raise reject("steps", f"`epochs` and `steps` are both given for {what}; keep one")
    if epochs is None and steps is None:
        raise reject("epochs", f"{what} needs a time: {' or '.join(examples)}")


def scaled(section: S, ratio: float, least: int) -> S:
    """A copy of a section with its `epochs` and `steps` (numbers or lists) multiplied by `ratio`; steps are
    rounded, to no fewer than `least`."""

    def times(value: Any) -> Any:
        if isinstance(value, list):
            return [times(item) for item in value]
        return max(round(value * ratio), least) if isinstance(value, int) else value * ratio

    found = {key: getattr(section, key, None) for key in ("epochs", "steps")}
    return section.model_copy(update={key: times(value) for key, value in found.items() if value is not None})


def drop_after_warmup(drop: int, start: int) -> None:
    if drop <= start and start > 0:
        message = f"the first drop of the learning rate (step {drop}) comes before the warm-up ends (step {start})"
        raise ConfigError([Diagnostic(message, notes=("times count from the start of the training",))])


def never_reached(drops: list[int], total_steps: int) -> list[str]:
    late = [drop for drop in drops if drop >= total_steps]
    if not late:
        return []
    what = "no drop" if len(late) == len(drops) else f"only {len(drops) - len(late)} of {len(drops)} drops"
    return [f"{what} of the learning rate happens: the training ends at step {total_steps}, before step {late[0]}"]
