"""Half a cosine."""

from __future__ import annotations

import math
from typing import Literal

from dltrain.optim.schedules.base import ToEnd


class Cosine(ToEnd):
    """Half a cosine from `lr` down to the end value: e + (lr - e) (1 + cos(pi t / T)) / 2."""

    source = "https://arxiv.org/abs/1608.03983"
    fact = {60: 0.5, 120: 0.0}
    name: Literal["cosine"] = "cosine"

    def remaining(self, progress: float) -> float:
        return (1 + math.cos(math.pi * progress)) / 2
