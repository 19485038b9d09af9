"""What the trainer receives: the objects that `build` assembles, and the numbers that steer its loop. Imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.data.evaluation import Evaluation
from dltrain.data.loading.choosing import Loader
from dltrain.data.loading.pipeline import Pipeline
from dltrain.data.types import InputSpec
from dltrain.engine.after_step import AfterStep, Stateful, WeightAverage
from dltrain.engine.distributed import ALONE, Group
from dltrain.engine.layer_gradients import LayerGradients
from dltrain.engine.precision import Scaler
from dltrain.engine.seeding import Seeds
from dltrain.engine.updates import Gradients, Update
from dltrain.engine.watching.watcher import Watcher
from dltrain.experiment.training import EarlyStopping, Size
from dltrain.optim.impl.learning import Learning
from dltrain.runs.reports import Row
from dltrain.tasks.impl.base import BuiltTask
from dltrain.tasks.metrics import Watched

POINTS = 10
"""Points of the curves in an epoch, its end included."""


@dataclass(frozen=True)
class LoopSettings:
    """The numbers that steer the loop."""

    total_steps: int
    steps_per_epoch: int
    batch_size: int
    accumulate: int = 1
    evaluate_every: int = 1
    early_stopping: EarlyStopping | None = None
    watched: Watched | None = None
    """The metric that decides which epoch is best, and that early stopping watches; None: the last epoch is best."""
    limit_batches: int | None = None
    progress_seconds: float = 0.25
    sizes: list[Size] = field(default_factory=list)
    """Of images that grow while the network is trained; none when they do not."""

    log_every: int | None = None
    """See Training."""

    @property
    def point_steps(self) -> int | None:
        """Steps from one point of the curves within an epoch to the next. None in short epochs, whose ends are points
        enough."""
        if self.log_every is not None:
            return self.log_every
        steps = min(self.steps_per_epoch, self.total_steps)
        return math.ceil(steps / POINTS) if steps >= 2 * POINTS else None

    def ends_epoch(self, steps: int) -> bool:
        """Whether an epoch ends after so many steps, be it a last incomplete one."""
        return steps % self.steps_per_epoch == 0 or steps == self.total_steps

    @property
    def epochs(self) -> int:
        """Epochs, a last incomplete one included."""
        return math.ceil(self.total_steps / self.steps_per_epoch)


@dataclass(frozen=True)
class Parts:
    """What `build` assembles for the trainer."""

    model: nn.Module
    forward: Callable[[Tensor], Any]
    """The model, compiled or not, as it is evaluated: processes that train together do not talk to one another."""
    optimizer: torch.optim.Optimizer
    learning: Learning
    """Which of its groups learn in a step."""
    learning_rate: Callable[[int], float]
    task: BuiltTask
    pipeline: Pipeline
    train: Loader
    validation: Loader | None
    device: torch.device
    shape: InputSpec
    """Of the images that the model takes."""
    evaluation: Evaluation
    seeds: Seeds
    gradients: Gradients
    """What a batch adds to the gradients, by a backward pass."""
    update: Update
    """How a batch changes the weights."""
    scaler: Scaler
    after_step: dict[str, AfterStep]
    """What happens after each step, in this order, by the names under which checkpoints keep its state."""
    average: WeightAverage | None = None
    """That of `after_step` which is evaluated."""
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    momentum: Callable[[int], float] | None = None
    feedback: Callable[[list[Row]], float] | None = None
    """A factor of the learning rate, from the epochs so far."""
    group: Group = ALONE
    """The processes that train together."""
    layers: LayerGradients | None = None
    """What keeps the norms of each layer's gradient, where they are reported."""
    watcher: Watcher | None = None
    """What looks at the layers in some steps."""

    def stateful(self) -> dict[str, Stateful]:
        """What keeps a state of its own beside the network, the optimizer and the metrics, by its name in a
        checkpoint."""
        return {**self.after_step, "scaler": self.scaler, "update": self.update, "task": self.task}
