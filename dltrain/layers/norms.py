"""The kind `Norm`, and those that torch has."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from dltrain.config import Choice, Positive, PositiveInt

if TYPE_CHECKING:
    from torch import nn


class Norm(Choice):
    """A normalisation of feature maps (B, C, H, W), applied between a layer and its activation.

    `fact` is the last output value of `build(48)` in training mode for the ramp 0, 0.01, ..., 3.83 shaped
    (2, 48, 2, 2), to 1e-5; the contract test requires it. `shifts` says whether a learned offset is
    added, so that the layer before needs no bias; `least_pixels` how large the maps must be. Two more facts
    that the contract test requires: how many `parameters` it has (for each channel, and besides), and what
    leaves a training output `unchanged_by`: a `scale` or a `shift` of the whole input, the rest of its `batch`.
    """

    kind: ClassVar[str] = "norms"
    fact: ClassVar[float | None] = None
    parameters: ClassVar[tuple[int, int] | None] = None
    unchanged_by: ClassVar[frozenset[str] | None] = None
    shifts: ClassVar[bool] = True
    least_pixels: ClassVar[int] = 1

    @abstractmethod
    def build(self, channels: int) -> nn.Module:
        """The layer for maps with `channels` channels."""


class BatchStatistics(Norm):
    """The options of norms that keep running averages."""

    momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of each batch in the running averages."""
    epsilon: Positive = 1e-5
    """Added to the variance."""


class BatchNorm(BatchStatistics):
    """Mean 0 and variance 1 per channel over the batch; running averages in evaluation."""

    source = "https://arxiv.org/abs/1502.03167"
    fact = 1.015551
    parameters = (2, 0)
    unchanged_by = frozenset({"scale", "shift"})
    name: Literal["batch_norm"] = "batch_norm"
    gain: bool = True
    """Learn a gain for each channel besides the offset; without, it stays 1."""

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        norm = nn.BatchNorm2d(channels, eps=self.epsilon, momentum=self.momentum)
        norm.weight.requires_grad_(self.gain)
        return norm


class SyncBatchNorm(BatchStatistics):
    """`batch_norm` with statistics over the batches of all processes; the same with one process."""

    fact = 1.015551
    parameters = (2, 0)
    unchanged_by = frozenset({"scale", "shift"})
    name: Literal["sync_batch_norm"] = "sync_batch_norm"

    def build(self, channels: int) -> nn.Module:
        from dltrain.layers.impl.norms import SyncBatchNorm

        return SyncBatchNorm(channels, eps=self.epsilon, momentum=self.momentum)


class GroupNorm(Norm):
    """Mean 0 and variance 1 per example and group of neighbouring channels."""

    source = "https://arxiv.org/abs/1803.08494"
    fact = 1.586612
    parameters = (2, 0)
    unchanged_by = frozenset({"scale", "shift", "batch"})
    name: Literal["group_norm"] = "group_norm"
    groups: PositiveInt = 32
    """Number of groups; where it does not divide the channels, their greatest common divisor is used."""
    epsilon: Positive = 1e-5
    """Added to the variance."""

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.GroupNorm(math.gcd(self.groups, channels), channels, eps=self.epsilon)


class LayerNorm(Norm):
    """Mean 0 and variance 1 per example."""

    source = "https://arxiv.org/abs/1607.06450"
    fact = 1.723025
    parameters = (2, 0)
    unchanged_by = frozenset({"scale", "shift", "batch"})
    name: Literal["layer_norm"] = "layer_norm"
    over: Literal["example", "channels"] = "example"
    """`example`: statistics over channels and pixels; `channels`: over the channels of each pixel (ConvNeXt)."""
    epsilon: Positive = 1e-5
    """Added to the variance."""

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        from dltrain.layers.impl.modules import OverChannels

        if self.over == "example":
            return nn.GroupNorm(1, channels, eps=self.epsilon)
        return OverChannels(nn.LayerNorm(channels, eps=self.epsilon))


class InstanceNorm(Norm):
    """Mean 0 and variance 1 per example and channel; needs maps of more than one pixel."""

    source = "https://arxiv.org/abs/1607.08022"
    fact = 1.290994
    parameters = (2, 0)
    unchanged_by = frozenset({"scale", "shift", "batch"})
    least_pixels = 2
    name: Literal["instance_norm"] = "instance_norm"
    epsilon: Positive = 1e-5
    """Added to the variance."""

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.InstanceNorm2d(channels, eps=self.epsilon, affine=True)


class RMSNorm(Norm):
    """Divides each pixel by the root mean square of its channels; no mean is taken off, no offset added."""

    source = "https://arxiv.org/abs/1910.07467"
    fact = 1.301549
    parameters = (1, 0)
    unchanged_by = frozenset({"scale", "batch"})
    shifts = False
    name: Literal["rms_norm"] = "rms_norm"
    epsilon: Positive = 1e-5
    """Added to the mean square."""

    def build(self, channels: int) -> nn.Module:
        from dltrain.layers.impl.norms import RMSNorm

        return RMSNorm(channels, self.epsilon)


class LocalResponseNorm(Norm):
    """x / (k + alpha (sum of the squares of `size` neighbouring channels))^beta, of AlexNet; no parameters."""

    source = "Krizhevsky et al. 2012"
    fact = 2.273658
    parameters = (0, 0)
    unchanged_by = frozenset({"batch"})
    shifts = False
    name: Literal["local_response_norm"] = "local_response_norm"
    size: PositiveInt = 5
    """How many channels are summed, the own one in the middle."""
    alpha: Positive = 1e-4
    """Weight of the sum, as in the paper (torch divides its own by `size`)."""
    beta: Positive = 0.75
    """Exponent."""
    k: Positive = 2.0
    """Added to the sum."""

    def build(self, channels: int) -> nn.Module:
        from dltrain.layers.impl.norms import LocalResponseNorm

        return LocalResponseNorm(self.size, alpha=self.alpha * self.size, beta=self.beta, k=self.k)
