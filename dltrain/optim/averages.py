"""The kind `Average`: running averages of the weights."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from dltrain.config import Choice, Fraction, Positive, PositiveInt

if TYPE_CHECKING:
    from torch import nn

    from dltrain.optim.impl.averages import EqualAverage, ExponentialAverage


class Average(Choice):
    """A running average of the weights; validation, `best` and `eval` use it when it is set."""

    kind: ClassVar[str] = "averages"

    @abstractmethod
    def build(self, model: nn.Module, total_steps: int, steps_per_epoch: int) -> Any:
        """An object with `model` (the averaged network, for evaluation), `after_step(step, frozen)` to be called
        after optimizer step number `step` = 0, 1, ..., `needs_statistics(step, epoch)`, whether norms of `model` must
        be measured anew when an epoch of `epoch` steps ends after `step` steps, `state_dict()`, the averaged network's
        tensors alone, and `load_state_dict(state)`."""


class EMA(Average):
    """Exponential moving average of the weights: a = decay a + (1 - decay) w after each step.

    Buffers, such as batch norm's statistics, are copied: they are running averages already.
    """

    source = "https://doi.org/10.1137/0330046"
    name: Literal["ema"] = "ema"
    decay: Fraction = 0.999
    """Share of the average that is kept per optimizer step; 0.999 averages over about 1000 steps, after a warm-up."""
    update_every: PositiveInt = 1
    """Steps between updates, which then use decay to that power: cheaper, with the same reach."""
    warmup: bool = True
    """Start with a smaller decay, min(decay, (1 + t) / (10 + t)) at step t, so that the first weights fade fast; else
    the average of a training of 100 steps is to nine tenths its random start."""

    def build(self, model: nn.Module, total_steps: int, steps_per_epoch: int) -> ExponentialAverage:
        from dltrain.optim.impl.averages import ExponentialAverage

        return ExponentialAverage(model, self.decay, self.update_every, self.warmup)


class SWA(Average):
    """Stochastic weight averaging: the equal mean of the weights at the ends of the last epochs.

    Before it starts, the average is the weights as they were at the last such end. The running statistics of batch norm
    are those of none of these weights: as in the paper they are measured anew, at the end of each epoch, on its batches
    (the last 100). It wants a learning rate that stays high:
    schedule `constant`, `cosine` with an `end`, or `cosine_restarts`.
    """

    source = "https://arxiv.org/abs/1803.05407"
    name: Literal["swa"] = "swa"
    start: Fraction = 0.75
    """Share of the training after which the weights are averaged."""
    epochs: Positive = 1.0
    """Epochs between the weights that are averaged; fractions allowed. The last step's are always among them."""

    def count(self, total_steps: int, steps_per_epoch: int) -> int:
        """How many sets of weights are averaged by the end."""
        every = max(round(self.epochs * steps_per_epoch), 1)
        return math.ceil(total_steps / every) - max(math.ceil(self.start * total_steps / every), 1) + 1

    def build(self, model: nn.Module, total_steps: int, steps_per_epoch: int) -> EqualAverage:
        from dltrain.optim.impl.averages import EqualAverage

        every = max(round(self.epochs * steps_per_epoch), 1)
        return EqualAverage(model, self.start * total_steps, every, total_steps)
