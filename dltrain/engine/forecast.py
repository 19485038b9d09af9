"""How long a training will take, from the pace of its first steps on this machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dltrain.data.types import require_images
from dltrain.runs.reports import EpochReport, Progress
from dltrain.tasks.metrics import was_evaluated

if TYPE_CHECKING:
    from dltrain.engine.trainer import Trainer

MEASURED = 2.0
"""Seconds of training that are measured, at least. The first step, which compiles and chooses kernels, is left out."""
WORTH_A_WORD = 30.0
"""A training that takes fewer seconds is over before one has read how long it takes."""
FORWARD = 1 / 3
"""What evaluating an image costs of what training on it does: of three passes of equal cost, the forward one alone."""


class Forecast:
    """The time that is left of a training, from the events of its first seconds."""

    def __init__(self, trainer: Trainer, measured: float = MEASURED) -> None:
        """measured: seconds of training to judge by, at least."""
        self.trainer, self.measured = trainer, measured
        self._goes_on = trainer.step > 0
        self._start: tuple[int, float] | None = None
        self._told = False

    def news(self, event: Progress | EpochReport) -> str | None:
        """What there is to say after an event: once, and only of a training that takes a while."""
        left = None if self._told else self.seconds_left(event)
        if left is None:
            return None
        self._told = True
        if left < WORTH_A_WORD:
            return None
        what = "the rest" if self._goes_on else "the training"
        early = " if it does not stop early" if self.trainer.settings.early_stopping is not None else ""
        return f"{what} takes about {duration(left)}, until {end(left)}{early}"

    def seconds_left(self, event: Progress | EpochReport) -> float | None:
        """How long the rest takes; None before enough was measured."""
        settings, pace = self.trainer.settings, self.pace(event)
        if pace is None:
            return None
        epochs = settings.epochs - event.step // settings.steps_per_epoch
        return pace * self.work(event.step, settings.total_steps) + epochs * self._between_epochs(pace)

    def pace(self, event: Progress | EpochReport) -> float | None:
        """Seconds of a step on images of full size; None before enough was measured."""
        spent = sum(row["seconds/data"] + row["seconds/compute"] for row in self.trainer.history)
        spent += event.seconds if isinstance(event, Progress) else 0.0
        if self._start is None:
            self._start = event.step, spent
            return None
        step, before = self._start
        return (spent - before) / self.work(step, event.step) if spent - before >= self.measured else None

    def work(self, start: int, stop: int) -> float:
        """Steps as many on images of full size, by the number of pixels."""
        settings = self.trainer.settings
        if not settings.sizes:
            return stop - start
        shape = require_images(self.trainer.parts.shape, "`progressive_size`")
        ends = zip(settings.sizes, [*(begin for begin, _, _ in settings.sizes[1:]), settings.total_steps], strict=True)
        return sum(
            max(min(end, stop) - max(begin, start), 0) * h * w / (shape.height * shape.width)
            for (begin, h, w), end in ends
        )

    def _between_epochs(self, pace: float) -> float:
        """Seconds of evaluation and checkpoints in each epoch: as they were, or, before the first, as they should be by
        the pace of training."""
        trainer, settings = self.trainer, self.trainer.settings
        if any(map(was_evaluated, trainer.history)):
            spent = sum(row["seconds/evaluate"] + row["seconds/checkpoint"] for row in trainer.history)
            return spent / len(trainer.history)
        steps = trainer.examples.get("validation", 0) / settings.batch_size
        return FORWARD * pace * min(steps, settings.limit_batches or steps) / settings.evaluate_every


def duration(seconds: float) -> str:
    """`14 minutes`, `2.5 hours`: as exact as a forecast is."""
    if seconds < 55:
        return f"{max(round(seconds / 10), 1) * 10} seconds"
    if seconds < 90 * 60:
        return _many(f"{seconds / 60:.0f}", "minute")
    return _many(f"{seconds / 3600:.1f}", "hour") if seconds < 48 * 3600 else _many(f"{seconds / 86400:.1f}", "day")


def end(seconds: float) -> str:
    """When what takes so long from now ends, by the local clock: `15:32`, with the date unless it is today's."""
    now = time.time()
    ends = time.localtime(now + seconds)
    today = ends[:3] == time.localtime(now)[:3]
    return time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", ends)


def _many(number: str, unit: str) -> str:
    return f"{number} {unit}{'' if number == '1' else 's'}"
