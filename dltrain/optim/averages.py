"""Running averages of the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dltrain.config import Fraction, PositiveInt
from dltrain.optim.base import Average

if TYPE_CHECKING:
    from torch import nn

    from dltrain.optim.running import ExponentialAverage


class EMA(Average):
    """Exponential moving average of the weights: a = decay a + (1 - decay) w after each step.

    Buffers, such as batch norm's statistics, are copied: they are running averages already.
    """

    source = "https://doi.org/10.1137/0330046"
    name: Literal["ema"] = "ema"
    decay: Fraction = 0.999
    """Share of the average that is kept per optimizer step; 0.999 averages over about 1000 steps."""
    update_every: PositiveInt = 1
    """Steps between updates, which then use decay to that power: cheaper, with the same reach."""
    warmup: bool = False
    """Start with a smaller decay, min(decay, (1 + t) / (10 + t)) at step t, so that the first weights fade fast."""

    def build(self, model: nn.Module) -> ExponentialAverage:
        from dltrain.optim.running import ExponentialAverage

        return ExponentialAverage(model, self.decay, self.update_every, self.warmup)
