"""What a training says about itself: plain values, and what follows from its history of epochs alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dltrain.errors import DltrainError
from dltrain.tasks.metrics import Watched

if TYPE_CHECKING:
    from dltrain.experiment.training import EarlyStopping

Row = dict[str, float]
"""The metrics of an epoch by TensorBoard tag, with its `epoch` (from 1) and the `step` after it."""


@dataclass(frozen=True)
class Histogram:
    """How values are spread: counts[i] of them lie between edges[i] and edges[i + 1]."""

    edges: list[float]
    counts: list[int]
    total: float
    """The sum of the values."""
    squares: float
    """The sum of their squares."""


@dataclass(frozen=True)
class Finding:
    """That a layer is ill, since when, and how much of it. kind: in a word, so that findings can be told apart."""

    kind: str
    layer: str
    step: int
    """After which it was seen."""
    since: int
    """The first look that saw it, by its step."""
    value: float
    """What was measured: a share or a size."""


@dataclass(frozen=True)
class Look:
    """What `training.watch` saw of the layers in one step."""

    step: int
    row: Row
    """Numbers by TensorBoard tag, with their `step`."""
    histograms: dict[str, Histogram]
    """By tag."""
    findings: list[Finding]
    """Those that are new."""
    sentences: list[str]
    """The same in words."""


def tagged(split: str, values: Row) -> Row:
    """Metrics of a split by TensorBoard tag, from those by name."""
    return {f"{split}/{name}": value for name, value in values.items()}


@dataclass(frozen=True)
class Progress:
    """Where training is, a few times a second. metrics: of the epoch so far, by name."""

    epoch: int
    step: int
    total_steps: int
    steps_per_epoch: int
    metrics: dict[str, float]
    lr: float
    examples_per_second: float
    seconds: float
    """Training time of this epoch so far."""
    points: list[Row] = field(default_factory=list)
    """See EpochReport."""
    looks: list[Look] = field(default_factory=list)
    """Those that `training.watch` took since the last event."""


@dataclass(frozen=True)
class EpochReport:
    """A finished epoch: its number from 1, and its metrics by TensorBoard tag."""

    epoch: int
    step: int
    total_steps: int
    metrics: Row
    is_best: bool
    points: list[Row] = field(default_factory=list)
    """By `step`, since the last event: the learning rate, and the mean loss of the epoch up to that step."""
    looks: list[Look] = field(default_factory=list)
    """See Progress."""


class NonFiniteError(DltrainError):
    """The loss or what training keeps (weights, their average, the optimizer's state) is no longer finite."""

    def __init__(self, step: int, lr: float, what: str) -> None:
        self.step, self.lr, self.what = step, lr, what
        super().__init__(f"the {what} became infinite or not a number in step {step} (learning rate {lr:.3g})")


def best_epoch(history: list[Row], watched: Watched | None) -> int | None:
    """Index of the row with the best metric; the last row without a metric.

    Among equal ones the metric's tie-break decides, then the earliest is best.
    """
    if watched is None:
        return len(history) - 1 if history else None
    measured = [i for i, row in enumerate(history) if not math.isnan(watched.cost(row))]
    return min(measured, key=lambda i: (watched.order(history[i]), i), default=None)


def stops_early(history: list[Row], stopping: EarlyStopping, watched: Watched) -> bool:
    """Whether `patience` evaluations in a row have not improved the metric."""
    best, waited = math.inf, 0
    for row in history:
        if watched.tag not in row:
            continue
        cost = watched.cost(row)
        if cost < best - stopping.minimum_change:  # never true of not-a-number
            best, waited = cost, 0
        else:
            waited += 1
    return waited >= stopping.patience
