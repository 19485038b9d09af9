"""The kind `Recorder`, and what it opens: a `Recording` of one run. A recording shows values and decides nothing."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dltrain.config import Choice
from dltrain.runs.reports import Histogram

if TYPE_CHECKING:
    from torch import Tensor

Row = Mapping[str, float]
"""Numbers by tag, and the `step` that they belong to; those of an epoch's end have its `epoch` too."""
Hyperparameters = Mapping[str, str | int | float | bool]
"""By dotted key, with plain values."""


@dataclass(frozen=True)
class About:
    """The run that a recording shows."""

    path: Path
    """Its directory, `runs/<experiment>/<NNN>`."""
    experiment: str
    """The experiment's name."""
    hyperparameters: Hyperparameters
    metrics: Sequence[str]
    """The names of the task's metrics, such as `loss`; a split's is `validation/loss`."""
    environment: Mapping[str, Any]
    """The content of environment.json."""
    smoothing: float = 0.0
    """Of the metrics in tables, for who cannot smooth what is shown: see `training.smoothing`."""

    @property
    def title(self) -> str:
        """What people call the run: `digits/001`."""
        return f"{self.experiment}/{self.path.name}"

    @property
    def identity(self) -> str:
        """Sixteen letters and digits that no other run has, and this one has after each resume too."""
        origin = [self.title, *(self.environment.get(key) for key in ("started", "platform", "command"))]
        return hashlib.sha256(json.dumps(origin).encode()).hexdigest()[:16]


class Recording(ABC):
    """An open record of one run. Its methods are called in the order `start`, then the others as values come, then
    `close`. What they raise ends the record, and not the training, unless the disk is full."""

    @abstractmethod
    def start(self, about: About, history: Sequence[Row], step: int) -> None:
        """Begin, or go on. history: the epochs so far; show those that an earlier process has not shown. step: from
        which the training goes on: what was shown beyond it comes again, with the same values."""

    @abstractmethod
    def step(self, row: Row) -> None:
        """A point of the curves between the ends of epochs."""

    def epoch(self, row: Row) -> None:
        """The metrics of a finished epoch: by default a point like others."""
        self.step(row)

    def histograms(self, found: Mapping[str, Histogram], step: int) -> None:  # noqa: B027
        """How values are spread after a step, by tag, such as those of a layer's weights."""

    def images(self, name: str, grid: Tensor, step: int = 0) -> None:  # noqa: B027
        """A grid of images (3, H, W) in 0..1. step: after which it was made; 0 for what the training begins with."""

    def figure(self, name: str, figure: Path) -> None:  # noqa: B027
        """A PNG file."""

    def close(self, state: str) -> None:  # noqa: B027
        """End. state: finished, interrupted or failed."""


class Recorder(Choice):
    """What shows a training, besides its table metrics.csv, which every run has."""

    kind: ClassVar[str] = "recorders"
    not_offered: ClassVar[Mapping[str, str]] = {"csv": "every run writes metrics.csv: `recorders: []` gives it alone"}
    library: ClassVar[str] = ""
    """The module that it imports, when that is none of dltrain's own."""
    install: ClassVar[str] = ""
    """What `pip install` must be given for it."""

    @abstractmethod
    def build(self) -> Recording:
        """A recording that has not begun."""

    @classmethod
    def is_installed(cls) -> bool:
        """Whether its library can be imported; a mere folder of that name is none."""
        found = find_spec(cls.library) if cls.library else None
        return not cls.library or (found is not None and found.origin is not None)


def shown(row: Row) -> dict[str, float]:
    """The numbers of a row that make curves, by tag."""
    return {tag: value for tag, value in row.items() if "/" in tag or tag == "lr"}


def pixels(grid: Tensor) -> Any:
    """A picture (3, H, W) in 0..1 as an array (H, W, 3) of bytes."""
    return (grid * 255).round().byte().permute(1, 2, 0).numpy()
