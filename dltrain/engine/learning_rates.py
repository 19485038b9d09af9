"""`find lr`: the learning-rate range test of Smith (https://arxiv.org/abs/1506.01186).

    lr(step) = low (high / low)^(step / (steps - 1))  ->  the loss of each step  ->  smoothed  ->  a suggestion

The rate grows from step to step until the loss diverges. The training is one in memory, of the experiment or of a
copy of a run's state: nothing is written. Imports torch: import it where trainings are built.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from dltrain.engine.after_step import Stateless
from dltrain.engine.builder import build
from dltrain.engine.trainer import Trainer
from dltrain.engine.updates import StepInput, Update
from dltrain.experiment.experiment import Experiment
from dltrain.runs.reports import NonFiniteError

SHARE = 0.9
"""What the steps before keep in a smoothed loss; nine of them, about."""
BELOW, ABOVE = 1e-4, 1e3
"""Where the rates begin and end, as multiples of the optimizer's usual one."""
LEAST = 0.02
"""Share of the loss at the start by which it must fall, for a suggestion."""
SEARCHING = ("pytorch_optimizer/dadapt", "pytorch_optimizer/prodigy")
"""Optimizers that find the size of their steps themselves."""


@dataclass(frozen=True)
class Tried:
    """A step, and the mean loss of its batch before the weights moved."""

    lr: float
    loss: float
    smoothed: float


@dataclass(frozen=True)
class Found:
    """What a range test says."""

    tried: list[Tried]
    ended: str
    """Why it ended."""
    least: float | None
    """The rate at which the smoothed loss is least: just below those that spoil it. None where it hardly falls."""

    @property
    def suggestion(self) -> float | None:
        """A tenth of `least`, in two digits."""
        return None if self.least is None else float(f"{self.least / 10:.1e}")


RULE = "a tenth of the learning rate at which the smoothed loss is least"


def usual_range(experiment: Experiment) -> tuple[float, float]:
    """Where the rates begin and end when nobody says: about the optimizer's default."""
    optimizer = experiment.optimizer
    try:
        plain: Any = type(optimizer).parse({"name": optimizer.name})
    except ValidationError:  # it cannot do without an option
        plain = optimizer
    usual = float(plain.lr)
    return BELOW * usual, ABOVE * usual


def require_rate(experiment: Experiment) -> None:
    """Raise ConfigError for an optimizer to which a range of learning rates says nothing."""
    name = experiment.optimizer.name
    if experiment.optimizer.needs_closure:
        message = f"`{name}` searches along the gradient for the length of each step: there is no learning rate to find"
        raise experiment.error("optimizer", message, "its default is the whole step that it finds")
    if name.startswith(SEARCHING):
        message = f"`{name}` finds the size of its steps itself: there is no learning rate to find"
        raise experiment.error("optimizer", message, "leave `lr` at its default, 1")


def range_test(
    experiment: Experiment, device: str, low: float, high: float, steps: int, *,
    state: dict[str, Any] | None = None, plugins: dict[str, str] | None = None,
) -> Iterator[Tried | Found]:  # fmt: skip
    """Each step as it is done, then what was found. steps: 10 at least. state: the checkpoint whose copy is trained.

    The schedule gives way, and so does a momentum that it moves; groups keep their `lr_scale` and `layer_decay`. Raises
    ConfigError when the training cannot be built.
    """
    require_rate(experiment)
    trainer = build(experiment if state is not None else _bare(experiment, steps), device, state, plugins=plugins)
    with contextlib.closing(trainer):
        yield from _tested(trainer, low, high, steps, state)


def _bare(experiment: Experiment, steps: int) -> Experiment:
    """The experiment without what would only cost time."""
    changes: dict[str, Any] = {
        "schedule": "constant", "training.average": None, "training.early_stopping": None, "training.watch": None,
    }  # fmt: skip
    if experiment.training.compile == "auto":
        changes["training.compile"] = False
    bare = experiment.override_all(changes)
    return bare.lasting(steps) if experiment.training.time is not None else bare


def _tested(
    trainer: Trainer, low: float, high: float, steps: int, state: dict[str, Any] | None
) -> Iterator[Tried | Found]:
    begin, ratio = 0 if state is None else state["step"], high / low

    def rate(step: int) -> float:
        return float(low * ratio ** ((step - begin) / (steps - 1)))

    losses = _Losses(trainer.parts.update)
    trainer.parts = replace(
        trainer.parts, learning_rate=rate, momentum=None, feedback=None, update=losses, validation=None, average=None,
        watcher=None,
    )  # fmt: skip
    if state is not None:
        trainer.load_state_dict(state)
    trainer.settings = replace(
        trainer.settings, total_steps=begin + steps + 1, early_stopping=None, progress_seconds=0.0, log_every=None
    )
    tried: list[Tried] = []
    average, weight, ended = 0.0, 0.0, f"after {steps} steps"
    try:
        for event in trainer.run():
            loss = losses.last
            average, weight = SHARE * average + (1 - SHARE) * loss, SHARE * weight + (1 - SHARE)
            tried.append(Tried(rate(event.step - 1), loss, average / weight))
            yield tried[-1]
            if _diverges(tried, steps):
                ended = "when the loss diverged"
                break
            if len(tried) == steps:
                break
    except NonFiniteError as error:
        ended = f"when the {error.what} became infinite or not a number"
    yield found(tried, ended, steps)


def _start(tried: list[Tried], steps: int) -> float:
    """The loss while the rate was too small to change it."""
    return median(each.loss for each in tried[: max(steps // 10, 3)])


def _diverges(tried: list[Tried], steps: int) -> bool:
    """Whether the smoothed loss has climbed above that at the start by all that it had fallen, or by its own size where
    that is more."""
    if len(tried) <= max(steps // 10, 3):
        return False
    start, best = _start(tried, steps), min(each.smoothed for each in tried)
    return tried[-1].smoothed > start + max(start - best, abs(start))


def found(tried: list[Tried], ended: str, steps: int) -> Found:
    """What the steps say. steps: how many there were to be."""
    if len(tried) < 4:
        return Found(tried, ended, None)
    start, lowest = _start(tried, steps), min(tried, key=lambda each: each.smoothed)
    falls = start - lowest.smoothed >= LEAST * max(abs(start), 1e-12)
    return Found(tried, ended, lowest.lr if falls else None)


class _Losses(Stateless):
    """An update that keeps the loss of its batch."""

    def __init__(self, inner: Update) -> None:
        self._inner = inner
        self.last = math.nan

    def run(self, given: StepInput) -> Tensor | None:
        """See Update."""
        metrics = given.metrics
        before = metrics.updates
        norm = self._inner.run(given)
        now = metrics.updates
        total = now * metrics.losses_after([now])[0]
        earlier = before * metrics.losses_after([before])[0] if before else 0.0
        self.last = (total - earlier) / (now - before)
        return norm
