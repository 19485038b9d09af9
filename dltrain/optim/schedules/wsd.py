"""Warm-up, stable, decay."""

from __future__ import annotations

import math
from typing import Literal

from dltrain.config import ConfigError, Diagnostic
from dltrain.optim.schedules.base import LearningRate, Share, ToEnd


class WSD(ToEnd):
    """Warm-up, stable, decay: `lr` is kept, and falls to the end value over the last share of the training."""

    source = "https://arxiv.org/abs/2404.06395"
    fact = {96: 1.0, 108: 0.2928932, 120: 0.0}
    name: Literal["wsd"] = "wsd"
    decay: Share = 0.2
    """Share of all steps over which it falls; 0.1 to 0.2 is usual."""
    shape: Literal["one_minus_sqrt", "linear"] = "one_minus_sqrt"
    """How it falls over the time u = 0..1 of the decay: 1 - sqrt(u), fast at first (2405.18392), or 1 - u."""

    def remaining(self, progress: float) -> float:
        return 1 - (math.sqrt(progress) if self.shape == "one_minus_sqrt" else progress)

    def after_warmup(self, lr: float, start: int, total_steps: int, steps_per_epoch: int) -> LearningRate:
        span = max(round(self.decay * total_steps), 1)
        begin = total_steps - span
        if begin < start:
            message = f"the warm-up ends at step {start}, after the decay should begin (step {begin})"
            raise ConfigError([Diagnostic(message, notes=("shorten `schedule.warmup` or `schedule.decay`",))])
        end = self.end_lr if self.end_lr is not None else lr * (self.end or 0.0)
        return lambda step: lr if step <= begin else end + (lr - end) * self.remaining((step - begin) / span)
