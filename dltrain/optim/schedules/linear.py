"""A straight line."""

from __future__ import annotations

from typing import Literal

from dltrain.optim.schedules.base import ToEnd


class Linear(ToEnd):
    """A straight line from `lr` down to the end value."""

    fact = {60: 0.5, 120: 0.0}
    name: Literal["linear"] = "linear"

    def remaining(self, progress: float) -> float:
        return 1 - progress
