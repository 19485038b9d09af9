"""TensorBoard, in event files that stand in the run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dltrain.runs.recorders.base import About, Recorder, Recording, Row, shown
from dltrain.runs.reports import Histogram
from dltrain.tasks.metrics import SPLITS, THROUGHPUT

if TYPE_CHECKING:
    from torch import Tensor

CHARTS = {"learning rate": ["lr"], "images per second": [THROUGHPUT], "norms": ["norm/gradient", "norm/weights"]}
"""The custom charts of a training, by title, besides those of its metrics."""


class TensorBoard(Recorder):
    """Event files in the run directory, for `tensorboard --logdir runs`: curves, charts with training and validation
    together, hyperparameters, images."""

    source = "https://www.tensorflow.org/tensorboard"
    name: Literal["tensorboard"] = "tensorboard"

    def build(self) -> Recording:
        return Events()


class Events(Recording):
    """The event file of this process."""

    def start(self, about: About, history: Sequence[Row], step: int) -> None:
        from dltrain.runs.events import EventFile

        self._file = EventFile(about.path, step)
        charts = {name: [f"train/{name}", f"validation/{name}"] for name in about.metrics}
        self._file.charts({" and ".join(about.metrics): charts, "training": CHARTS})
        tags = [f"{split}/{name}" for split in SPLITS for name in about.metrics]
        self._file.hyperparameters(about.hyperparameters, tags)
        for row in history:
            self.step(row)
        self._file.flush()

    def step(self, row: Row) -> None:
        self._file.scalars(shown(row), int(row["step"]))
        self._file.flush()

    def histograms(self, found: Mapping[str, Histogram], step: int) -> None:
        self._file.histograms(found, step)
        self._file.flush()

    def images(self, name: str, grid: Tensor, step: int = 0) -> None:
        self._file.image(name, grid, step)
        self._file.flush()

    def figure(self, name: str, figure: Path) -> None:
        from dltrain.runs.events import picture

        self.images(name, picture(figure))

    def close(self, state: str) -> None:
        self._file.close()
