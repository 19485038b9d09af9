"""The schedule that watches a metric."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from dltrain.config import NonNegative, NonNegativeInt
from dltrain.optim.schedules.base import Feedback, LearningRate, Schedule
from dltrain.tasks.base import Tag, Task

Factor = Annotated[float, Field(gt=0, lt=1)]


class ReduceOnPlateau(Schedule):
    """The learning rate times `factor` when a metric has not improved for more than `patience` epochs.

    It follows from the metrics of the epochs so far, which a checkpoint holds. Epochs that did not measure the metric
    do not count.
    """

    source = "https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.ReduceLROnPlateau.html"
    fact = {0: 1.0, 119: 1.0}
    name: Literal["reduce_on_plateau"] = "reduce_on_plateau"
    metric: Tag | None = None
    """What must improve: a loss falls, an accuracy rises. Null: `validation/loss`, without a validation split
    `train/loss`."""
    factor: Factor = 0.1
    """Factor of each drop."""
    patience: NonNegativeInt = 10
    """Epochs without improvement that are borne; the next one drops the rate."""
    threshold: NonNegative = 1e-4
    """The least improvement, as a share of the best value so far."""
    cooldown: NonNegativeInt = 0
    """Epochs after a drop in which a lack of improvement does not count."""
    min_lr: NonNegative = 0.0
    """The rate falls no further; with an `lr` below it, it stays as it is. It never rises."""

    def after_warmup(self, lr: float, start: int, total_steps: int, steps_per_epoch: int) -> LearningRate:
        return lambda step: lr

    def build_feedback(self, lr: float, task: Task, validation: bool) -> Feedback | None:
        watched = task.watched(self.metric or ("validation/loss" if validation else "train/loss"))
        metric, falls = watched.tag, watched.falls

        def factor(history: list[dict[str, float]]) -> float:
            best, waited, cooling, now = math.inf if falls else -math.inf, 0, 0, lr
            for value in (row[metric] for row in history if metric in row):
                needed = best * (1 - self.threshold if falls else 1 + self.threshold)
                better = value < needed if falls else value > needed
                best, waited = (value, 0) if better else (best, waited + 1)
                if cooling:
                    cooling, waited = cooling - 1, 0
                if waited > self.patience:
                    now, cooling, waited = min(now, max(now * self.factor, self.min_lr)), self.cooldown, 0
            return now / lr

        return factor
