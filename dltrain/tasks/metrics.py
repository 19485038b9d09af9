"""What a metric is: its name, which way is better, how it is shown; and how a history of epochs is judged by one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SPLITS = ("validation", "train")
"""The splits that an epoch measures metrics on."""


@dataclass(frozen=True)
class Metric:
    """A number that says how good a model is on a split.

    format: Python's format of its results. brief: that of the lines of a training, by default the same. tie_break: the
    metric that decides between equal values. in_training: whether it is measured on training batches too.
    """

    name: str
    direction: Literal["min", "max"]
    format: str = ".4f"
    brief: str = ""
    tie_break: str | None = None
    in_training: bool = True

    def text(self, value: float) -> str:
        """A result, with the metric's name."""
        return f"{self.name} {value:{self.format}}"

    def brief_text(self, value: float) -> str:
        """The same on a line of a training."""
        return f"{self.name} {value:{self.brief or self.format}}"


THROUGHPUT = "throughput/images_per_second"
"""The tag of the training examples that pass in a second."""
OF_COST = {
    THROUGHPUT: Metric(THROUGHPUT, "max", ",.0f"),
    "parameters": Metric("parameters", "min", ",.0f"),
    "seconds": Metric("seconds", "min", ",.1f"),
}
"""What models are compared by besides the metrics of a task: speed, size and the time of a training."""


@dataclass(frozen=True)
class Watched:
    """A metric of a split, by the tag under which the rows of a history have it: `validation/accuracy`."""

    tag: str
    metric: Metric
    tie_break: Watched | None = None

    @property
    def falls(self) -> bool:
        """Whether less is better."""
        return self.metric.direction == "min"

    def cost(self, row: Mapping[str, float]) -> float:
        """The value, so that less is better. Not a number where the row has none."""
        value = row.get(self.tag, math.nan)
        return value if self.falls else -value

    def order(self, row: Mapping[str, float]) -> tuple[float, float]:
        """By which the better one of two rows comes first."""
        other = self.tie_break.cost(row) if self.tie_break is not None else 0.0
        return self.cost(row), math.inf if math.isnan(other) else other

    def text(self, row: Mapping[str, float]) -> str:
        """The tag and the value: `validation/accuracy 0.9712`."""
        return f"{self.tag} {row[self.tag]:{self.metric.format}}"


def was_evaluated(row: Mapping[str, float]) -> bool:
    """Whether an epoch measured the validation split."""
    return any(tag.startswith("validation/") for tag in row)
