"""The kinds `Optimizer`, `Schedule` and `Average`, and the warm-up that every schedule can have."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from dltrain.config import (
    Choice,
    ConfigError,
    Diagnostic,
    NonNegative,
    NonNegativeInt,
    Positive,
    Probability,
    Section,
    reject,
    suggest,
)
from dltrain.optim.wrappers import SAM, Lookahead

if TYPE_CHECKING:
    import torch
    from torch import nn

S = TypeVar("S", bound=Section)

LearningRate = Callable[[int], float]
"""The learning rate of optimizer step t = 0, 1, ..., total_steps - 1: a pure function."""
Momentum = Callable[[int], float]
"""The momentum of optimizer step t, in 0..1: a pure function."""

Feedback = Callable[[list[dict[str, float]]], float]
"""A factor of the learning rate from the metrics of the epochs so far, by their tags: a pure function."""

EXEMPTIONS = ("bias", "norm", "activation")
"""The words that `no_decay` knows besides patterns."""


class Group(Section):
    """Parameters that are trained with options of their own."""

    rivals = ((("lr",), ("lr_scale",)),)

    match: str
    """Pattern of whole parameter names: `head.*`, `*.weight`. The first group that matches a parameter has it."""
    lr: Positive | None = None
    """Their peak learning rate, also under `layer_decay`; it follows the schedule in proportion. Null: the
    optimizer's."""
    lr_scale: Positive | None = None
    """Their learning rate as a share of what it would be, that is the optimizer's, or less by `layer_decay`."""
    weight_decay: NonNegative | None = None
    """Their weight decay, whatever `no_decay` says; null: the optimizer's, and `no_decay` holds."""
    after: NonNegative = 0.0
    """Epochs before they begin to learn; until then they are frozen."""
    until: Positive | None = None
    """Epochs after which they stop learning; null: they learn to the end."""
    frozen: bool = False
    """They never learn. While parameters are frozen, by this, `after` or `until`, nothing moves them, their gradients
    do not count in `clip_norm`, and a norm of which no parameter learns keeps its statistics and works with them, as in
    evaluation."""

    @field_validator("lr", "lr_scale", "until", mode="before")
    @classmethod
    def _not_frozen_by_0(cls, value: Any, info: ValidationInfo) -> Any:
        if type(value) in (int, float) and value == 0:
            key = info.field_name or ""
            raise reject(key, f"`{key}` must be above 0; `frozen: true` says that the group never learns")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Group:
        if self.lr is not None and self.lr_scale is not None:
            raise reject("lr_scale", "`lr` and `lr_scale` both say how fast the group learns; keep one")
        if self.until is not None and self.until <= self.after:
            raise reject("until", f"the group would never learn: `after` is {self.after:g}, `until` {self.until:g}")
        given = {
            "lr": self.lr, "lr_scale": self.lr_scale, "weight_decay": self.weight_decay, "after": self.after or None,
            "until": self.until,
        }  # fmt: skip
        idle = [key for key, value in given.items() if value is not None]
        if self.frozen and idle:
            raise reject(idle[0], f"a `frozen` group never learns, and `{idle[0]}` would do nothing")
        if not self.frozen and not idle:
            message = "a group changes nothing without `lr`, `lr_scale`, `weight_decay`, `after`, `until` or `frozen`"
            raise reject("match", message)
        return self


class Optimizer(Choice):
    """How gradients change the weights.

    `waits` marks those that read numbers back from the device at each step, which is slow there. At `trial_lr` it
    lowers the loss of the contract test.
    """

    kind: ClassVar[str] = "optimizers"
    waits: ClassVar[bool] = False
    trial_lr: ClassVar[float] = 0.05
    needs_closure: ClassVar[bool] = False
    """Whether a step evaluates the loss of its batch several times: `step` takes a closure."""
    schedules: ClassVar[tuple[str, ...] | None] = None
    """The schedules that it takes; null for all."""

    name: str
    lr: Positive
    """Peak learning rate; the schedule scales it."""
    weight_decay: NonNegative = 0.0
    """L2 penalty: this times the weight is added to its gradient."""
    no_decay: list[str] = []
    """Parameters without weight decay: `bias` (with all that is added: class tokens, embeddings of positions, tables of
    relative ones), `norm` (of normalisation layers, with other vectors, such as layer scales), `activation` (of
    trainable activations), or patterns of names such as `classifier.*`. Empty: all decay, as in torch."""
    groups: list[Group] = []
    """Parameters with a learning rate or weight decay of their own: [{match: "head.*", lr: 0.1}]."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Learning rates fall by this factor from each layer to the one before it, the last layer having the full rate:
    0.65 to 0.9 is usual for fine-tuning. Null: all learn alike."""
    lookahead: Lookahead | None = None
    """Slow weights that follow the optimizer's: {steps: 5, alpha: 0.5}; null for none."""
    sam: SAM | None = None
    """Take each gradient where the loss is sharpest: {rho: 0.05}; null for none."""

    @field_validator("no_decay")
    @classmethod
    def _no_misspelt_word(cls, words: list[str]) -> list[str]:
        return known_words("no_decay", words)

    @abstractmethod
    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        """The torch optimizer of parameter groups that carry their own `weight_decay`."""

    def options_of(self, model: nn.Module) -> dict[str, dict[str, Any]]:
        """What this optimizer must know about parameters besides, by name: those that differ in it get groups apart."""
        return {}

    def average(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
        """The average of the weights that the optimizer itself keeps, like that which an `Average` builds, or None."""
        return None

    def first_step(self, w: float, g: float) -> float | None:
        """The weight after one step from `w` with gradient `g`: what the contract test checks. None: unchecked."""
        return None


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

    def build_feedback(self, lr: float, validation: bool) -> Feedback | None:
        """What the learning rate is multiplied with besides, from the epochs so far, for schedules that watch them;
        else None. `validation` says whether there is a validation split."""
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


class Average(Choice):
    """A running average of the weights; validation, `best` and `eval` use it when it is set."""

    kind: ClassVar[str] = "averages"

    @abstractmethod
    def build(self, model: nn.Module, total_steps: int, steps_per_epoch: int) -> Any:
        """An object with `model` (the averaged network, for evaluation), `update(model, step)` to be called
        after optimizer step number `step` = 0, 1, ..., `needs_statistics(step, epoch)`, whether norms of `model` must
        be measured anew when an epoch of `epoch` steps ends after `step` steps, `state_dict()`, the averaged network's
        tensors alone, and `load_state_dict(state)`."""


def known_words(key: str, words: list[str]) -> list[str]:
    """`words` of `no_decay` and the like, for a section's validator: a misspelt word of EXEMPTIONS is an error."""
    for word in words:
        if word not in EXEMPTIONS and word.isalpha() and (near := suggest(word, EXEMPTIONS)):
            raise reject(key, f"`{word}` is no group of parameters; did you mean `{near}`?")
    return words


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
