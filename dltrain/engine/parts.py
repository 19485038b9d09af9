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
from dltrain.data.types import ImageShape
from dltrain.engine.distributed import ALONE, Group
from dltrain.experiment.training import EarlyStopping, Size
from dltrain.optim.impl.learning import Learning
from dltrain.runs.reports import Row
from dltrain.tasks.impl.classification import Classification
from dltrain.tasks.metrics import Watched

POINTS = 10
"""Points of the curves in an epoch, its end included."""


@dataclass(frozen=True)
class LoopSettings:
    """The numbers that steer the loop."""

    seed: int
    total_steps: int
    steps_per_epoch: int
    batch_size: int
    accumulate: int = 1
    clip_norm: float | None = None
    evaluate_every: int = 1
    early_stopping: EarlyStopping | None = None
    watched: Watched | None = None
    """The metric that decides which epoch is best, and that early stopping watches; None: the last epoch is best."""
    limit_batches: int | None = None
    progress_seconds: float = 0.25
    sizes: list[Size] = field(default_factory=list)
    """Of images that grow while the network is trained; none when they do not."""
    needs_closure: bool = False
    """Whether a step of the optimizer evaluates the loss itself, as often as it likes."""

    @property
    def point_steps(self) -> int | None:
        """Steps from one point of the curves within an epoch to the next: ten an epoch. None in short epochs, whose
        ends are points enough."""
        steps = min(self.steps_per_epoch, self.total_steps)
        return math.ceil(steps / POINTS) if steps >= 2 * POINTS else None

    @property
    def epochs(self) -> int:
        """Epochs, a last incomplete one included."""
        return math.ceil(self.total_steps / self.steps_per_epoch)


@dataclass
class Parts:
    """What `build` assembles for the trainer."""

    model: nn.Module
    forward: Callable[[Tensor], Any]
    """The model, compiled or not; where several processes train together, its backward pass averages gradients."""
    optimizer: torch.optim.Optimizer
    learning: Learning
    """Which of its groups learn in a step."""
    learning_rate: Callable[[int], float]
    task: Classification
    pipeline: Pipeline
    train: Loader
    validation: Loader | None
    device: torch.device
    shape: ImageShape
    """Of the images that the model takes."""
    evaluation: Evaluation
    average: Any = None
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    scaler: Any = None
    """A GradScaler, or what has its methods."""
    penalties: Any = None
    lookahead: Any = None
    sam: Any = None
    momentum: Callable[[int], float] | None = None
    feedback: Callable[[list[Row]], float] | None = None
    """A factor of the learning rate, from the epochs so far."""
    group: Group = ALONE
    """The processes that train together."""
    forward_alone: Callable[[Tensor], Any] | None = None
    """`forward` for evaluation, in which processes do not talk to one another; None where `forward` is just that."""
    no_sync: Callable[[], AbstractContextManager[Any]] = nullcontext
    """The context in which a backward pass leaves gradients as they are, to be averaged with those of the next."""
