"""Relatives of batch normalisation: other statistics of a batch, and mixtures with those of an example."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from dltrain.config import NonNegative, NonNegativeInt, Positive, reject
from dltrain.layers.norms import BatchStatistics

if TYPE_CHECKING:
    from torch import nn


class BatchRenorm(BatchStatistics):
    """Batch normalisation that is pulled towards its running averages: g ((x - m_B) / s_B r + d) + b.

    r = s_B / s clipped to [1 / r_max, r_max] and d = (m_B - m) / s clipped to [-d_max, d_max] take no
    gradient. Without clipping a training output is the one in evaluation; while the limits are 1 and 0
    it is `batch_norm`'s. For training with small batches.
    """

    source = "https://arxiv.org/abs/1702.03275"
    fact = 1.015551
    parameters = (2, 0)
    unchanged_by = frozenset({"scale", "shift"})
    name: Literal["batch_renorm"] = "batch_renorm"
    momentum: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of each batch in the running averages."""
    r_max: Annotated[float, Field(ge=1)] = 3.0
    """The greatest r, reached at step `r_steps`."""
    d_max: NonNegative = 5.0
    """The greatest d, reached at step `d_steps`."""
    plain_steps: NonNegativeInt = 5_000
    """Training steps of plain batch normalisation before the limits open; shorten it with the training."""
    r_steps: NonNegativeInt = 40_000
    """The training step at which r may reach `r_max`."""
    d_steps: NonNegativeInt = 25_000
    """The training step at which d may reach `d_max`."""

    @model_validator(mode="after")
    def _in_order(self) -> BatchRenorm:
        for key, end in (("r_steps", self.r_steps), ("d_steps", self.d_steps)):
            if end < self.plain_steps:
                raise reject(key, f"`{key}` ({end}) must not be below `plain_steps` ({self.plain_steps})")
        return self

    def build(self, channels: int) -> nn.Module:
        from dltrain.layers.impl.norms import BatchRenorm

        steps = (self.plain_steps, self.r_steps, self.d_steps)
        return BatchRenorm(channels, self.momentum, self.epsilon, self.r_max, self.d_max, steps)


class L1BatchNorm(BatchStatistics):
    """Batch normalisation by the mean absolute deviation: g (x - m_B) / (mean |x - m_B| + epsilon) + b."""

    source = "https://arxiv.org/abs/1802.09769"
    fact = 1.015614
    parameters = (2, 0)
    unchanged_by = frozenset({"scale", "shift"})
    name: Literal["l1_batch_norm"] = "l1_batch_norm"
    epsilon: Positive = 1e-5
    """Added to the mean absolute deviation."""
    unit_variance: bool = False
    """Multiply the deviation by sqrt(pi / 2) = 1.2533, so that normal data get variance 1, as in `batch_norm`."""

    def build(self, channels: int) -> nn.Module:
        from dltrain.layers.impl.norms import StatisticsNorm, mean_and_gaussian_l1, mean_and_l1

        statistics = mean_and_gaussian_l1 if self.unit_variance else mean_and_l1
        return StatisticsNorm(channels, statistics, self.momentum, self.epsilon)


class GeneralizedBatchNorm(BatchStatistics):
    """Batch normalisation g (x - S) / D + b by another pair of a statistic S and its measure of deviation D.

    The superquantile at a level is the mean of the values above the quantile there. Running averages are kept
    of S and D themselves. The paper's `superquantile` is meant for a ReLU that follows; the level is our choice.
    """

    source = "https://arxiv.org/abs/1812.03271"
    fact = 1.999979
    parameters = (2, 0)
    unchanged_by = frozenset({"scale", "shift"})
    name: Literal["generalized_batch_norm"] = "generalized_batch_norm"
    epsilon: Positive = 1e-5
    """Added to D, and to the variance under its root for `pair: deviation`."""
    pair: Literal["superquantile", "median", "range", "deviation"] = "superquantile"
    """`superquantile`: quantile, and superquantile - mean; `median`: median, and mean distance from it; `range`:
    middle of least and greatest, and half their distance; `deviation`: mean and root of the variance (`batch_norm`)."""
    level: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the values up to the quantile of `superquantile`; the other pairs have none."""

    def build(self, channels: int) -> nn.Module:
        from dltrain.layers.impl import norms as modules

        pairs: dict[str, modules.Statistics] = {
            "superquantile": modules.QuantileAndSuperquantile(self.level),
            "median": modules.median_and_l1,
            "range": modules.middle_and_range,
            "deviation": modules.mean_and_deviation,
        }
        return modules.StatisticsNorm(channels, pairs[self.pair], self.momentum, self.epsilon)


class SwitchableNorm(BatchStatistics):
    """Mean and variance are learned mixtures of those of instance, layer and batch normalisation.

    g (x - sum w_k m_k) / sqrt(sum v_k s_k^2 + epsilon) + b, where w and v are softmaxes of three logits each,
    1 / 3 at the start. Running averages stand for the batch in evaluation.
    """

    source = "https://arxiv.org/abs/1806.10779"
    fact = 1.012909
    parameters = (2, 6)
    unchanged_by = frozenset({"scale", "shift"})
    name: Literal["switchable_norm"] = "switchable_norm"

    def build(self, channels: int) -> nn.Module:
        from dltrain.layers.impl.norms import SwitchableNorm

        return SwitchableNorm(channels, self.momentum, self.epsilon)
