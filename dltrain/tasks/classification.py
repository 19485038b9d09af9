"""The task `classification`."""

from __future__ import annotations

from typing import ClassVar, Literal

from dltrain.tasks.base import Task
from dltrain.tasks.metrics import Metric


class Classification(Task):
    """One class per example, out of several."""

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("loss", "min"),
        Metric("accuracy", "max", brief=".2%", tie_break="loss"),
    )
    ranks: ClassVar[str] = "accuracy"
    name: Literal["classification"] = "classification"
