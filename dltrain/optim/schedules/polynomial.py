"""A power of the time that is left."""

from __future__ import annotations

import math
from typing import Literal

from dltrain.config import Positive
from dltrain.optim.schedules.base import ToEnd


class Polynomial(ToEnd):
    """A power of the time that is left: e + (lr - e) (1 - t / T)^power."""

    example = {"power": 2.0}
    fact = {60: 0.25, 120: 0.0}
    name: Literal["polynomial"] = "polynomial"
    power: Positive = 1.0
    """The exponent; 1 is a straight line, 2 falls fast first."""

    def remaining(self, progress: float) -> float:
        return math.pow(1 - progress, self.power)
