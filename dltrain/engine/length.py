"""How many steps a training has: as its experiment says, or as many as fit into a time on this machine.

Imports torch: import it where a training is built.
"""

from __future__ import annotations

import contextlib
import gc
import io
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Protocol

import torch

from dltrain.config import ConfigError
from dltrain.engine.decisions import Decision, Decisions
from dltrain.engine.forecast import MEASURED, Forecast
from dltrain.engine.trainer import Trainer
from dltrain.experiment.experiment import Experiment
from dltrain.runs.reports import NonFiniteError
from dltrain.tasks.metrics import was_evaluated

TIMED_STEPS = 10**6
"""The length of a training whose first steps are timed: more than are ever done."""
TIMED_BATCHES = 10
"""Batches of an evaluation that is timed."""
ENOUGH = 3
"""Evaluations among which the first one, which may compile, is not the usual one."""
STILL = 1e-6
"""What the learning rate of steps that are timed is multiplied by: no weight may become infinite before it counts."""


def count_steps(experiment: Experiment, examples: int, devices: int = 1) -> tuple[int, int]:
    """Optimizer steps of an epoch over a training split of `examples`, and of the whole training.

    Raises ConfigError for a batch larger than the split, or one that the devices cannot share evenly.
    """
    training, batch = experiment.training, experiment.training.batch_of(examples)
    if batch % (unit := devices * training.accumulate):
        raise _uneven(experiment, batch, unit, devices)
    if batch > examples:
        message = f"a batch of {batch} is larger than the training split of {examples} examples"
        raise experiment.error("training.batch_size", message, f"write batch_size: {examples} or less")
    steps_per_epoch = -(-examples // batch)
    if training.limit_batches is not None:
        steps_per_epoch = min(steps_per_epoch, training.limit_batches)
    return steps_per_epoch, training.steps or max(round((training.epochs or 0) * steps_per_epoch), 1)


def _uneven(experiment: Experiment, batch: int, unit: int, devices: int) -> ConfigError:
    """The error for a batch that is cut into `unit` parts, which would not be equal."""
    training = experiment.training
    if training.batch_size != "all":
        parts = f" in {training.accumulate} parts each" if training.accumulate > 1 else ""
        message = f"{devices} devices{parts} cannot share a batch of {batch} evenly"
        note = f"write batch_size: {max(round(batch / unit), 1) * unit}"
        return experiment.error("training.batch_size", message, note)
    message = f"all {batch:,} training examples cannot be cut into {unit} equal parts"
    if devices > 1:
        message += f", {training.accumulate} for each of {devices} devices" if training.accumulate > 1 else ""
        return experiment.error("training.batch_size", message, f"change `data.validation` so that {unit} divides them")
    near = sorted(range(2, 4 * unit), key=lambda parts: (abs(parts - unit), parts))
    note = next((f"write accumulate: {parts}, or " for parts in near if batch % parts == 0), "")
    return experiment.error(
        "training.accumulate", message, f"{note}change `data.validation` so that {unit} divides them"
    )


class Assemble(Protocol):
    """Makes the trainer of an experiment."""

    def __call__(self, experiment: Experiment, *, timing: bool = False, measured: Decisions | None = None) -> Trainer:
        """timing: whether its steps are only timed. measured: what was decided by timing some."""


def slowed(learning_rate: Callable[[int], float]) -> Callable[[int], float]:
    """The learning rate of steps that are timed."""
    return lambda step: STILL * learning_rate(step)


def build_timed(experiment: Experiment, assemble: Assemble, kept: Decision | None, measured: Decisions) -> Trainer:
    """A trainer of as many steps as fit into `training.time`. kept: how many were decided on before; None: a few steps
    are timed first, by trainers that are thrown away. measured: what else was decided by timing some.

    Whether it pays to compile the network depends on the number of steps: they are timed again when it does.
    """
    steps, longest = kept, experiment.lasting(TIMED_STEPS)
    undecided = experiment.training.compile == "auto"
    if steps is None:
        uncompiled = longest.override("training.compile", False) if undecided else longest
        steps = _steps_within(experiment, assemble(uncompiled, timing=True))
        forget()
    trainer = assemble(experiment.lasting(steps.value), measured=measured | {"steps": steps})
    if kept is None and undecided and trainer.about["decisions"]["compile"]["value"]:
        trainer.close()
        del trainer
        forget()
        steps = _steps_within(experiment, assemble(longest.override("training.compile", True), timing=True))
        forget()
        trainer = assemble(experiment.lasting(steps.value), measured=measured | {"steps": steps})
    return trainer


def forget() -> None:
    """Leave nothing of a trainer that was thrown away: the loader is chosen by the memory that is free, and a network
    is compiled otherwise after others of its kind, which a resume does not see."""
    gc.collect()
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    torch.cuda.empty_cache()


def _steps_within(experiment: Experiment, trainer: Trainer) -> Decision:
    """How many steps fit into `training.time`, evaluations and checkpoints included; the trainer is used up.

    Processes that train together call it together, and decide the same.
    Raises ConfigError when no step can be timed.
    """
    seconds = experiment.training.seconds
    assert seconds is not None
    parts, settings = trainer.parts, trainer.settings
    with contextlib.closing(trainer):
        forecast, pace = Forecast(trainer, _timing(seconds)), None
        try:
            for event in trainer.run():
                if (pace := parts.group.broadcast(forecast.pace(event))) is not None:
                    break
            evaluation, checkpoint = _evaluation(trainer), _checkpoint(trainer)
        except NonFiniteError as error:
            raise experiment.error("training.time", f"no step can be timed: {error}") from None
    assert pace is not None  # the training is longer than that
    step = pace * forecast.work(0, settings.total_steps) / settings.total_steps
    between = evaluation / settings.evaluate_every + checkpoint
    count = seconds / (step + between / settings.steps_per_epoch)
    costs = f"{step:.3g} s a step, {evaluation:.3g} s an evaluation"
    return parts.group.broadcast(
        Decision(max(round(count), 1), f"as many as fit into {_text(experiment)} here: {costs}")
    )


def _timing(seconds: float) -> float:
    """For how many seconds the steps of a training of so many are timed: 2, at most a tenth of a short training, and up
    to 20 for one of hours, in which a wrong pace is a matter of minutes."""
    return min(max(MEASURED, min(seconds / 200, 20.0)), seconds / 10)


def _text(experiment: Experiment) -> str:
    time = experiment.training.time
    return time if isinstance(time, str) else f"{time:g} s"


def _evaluation(trainer: Trainer) -> float:
    """Seconds of an evaluation: as they were in most epochs, or, when few have ended, by some batches."""
    validation, settings = trainer.parts.validation, trainer.settings
    if validation is None:
        return 0.0
    times = [row["seconds/evaluate"] for row in trainer.history if was_evaluated(row)]
    if len(times) >= ENOUGH:
        return median(times)
    batches = trainer.examples["validation"] / settings.batch_size
    batches = min(batches, settings.limit_batches or batches)
    for count in (1, min(TIMED_BATCHES, max(round(batches), 1))):  # the first one may compile
        started = time.perf_counter()
        trainer.evaluate(validation, count)
        spent = time.perf_counter() - started
    return spent / count * batches


def _checkpoint(trainer: Trainer) -> float:
    """Seconds of writing the training's state, without the disk."""
    started = time.perf_counter()
    torch.save(trainer.state_dict(), io.BytesIO())
    return time.perf_counter() - started
