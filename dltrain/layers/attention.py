"""The kind `Attention`: blocks that weigh the channels and pixels of feature maps."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import field_validator

from dltrain.config import Choice, PositiveInt, reject

if TYPE_CHECKING:
    from torch import nn


class Attention(Choice):
    """A block on feature maps (B, C, H, W) that keeps their size: on a residual branch before the addition,
    or after a block of a plain network.

    Facts that the contract test requires: how many `parameters` it has for a number of channels, the factor
    `at_zero` that leaves of the input when all of them are 0, the `bound` on the factors of a value, and
    whether it is `blind` to places: reordering the pixels before it or after it is the same.
    """

    kind: ClassVar[str] = "attention"
    parameters: ClassVar[dict[int, int]] = {}
    at_zero: ClassVar[float | None] = None
    bound: ClassVar[float | None] = None
    blind: ClassVar[bool | None] = None
    position: Literal["branch", "pre", "post"] = "branch"
    """Where the block is in a residual block: `branch`, at the end of the branch, before the addition, as published;
    `pre`, before the residual block; `post`, after it."""

    @abstractmethod
    def build(self, channels: int) -> nn.Module:
        """The block for maps with `channels` channels; one block per place of use."""


class SqueezeExcitation(Attention):
    """x s(W2 relu(W1 mean(x) + b1) + b2): each channel weighed by a function of the means of all."""

    source = "https://arxiv.org/abs/1709.01507"
    parameters = {64: 580, 256: 8_464}
    at_zero, bound, blind = 0.5, 1.0, True
    name: Literal["squeeze_excitation"] = "squeeze_excitation"
    reduction: PositiveInt = 16
    """Channels per hidden unit; there is at least one unit."""

    def build(self, channels: int) -> nn.Module:
        from dltrain.layers.impl.attention import SqueezeExcitation

        return SqueezeExcitation(channels, self.reduction)


class ConcurrentExcitation(Attention):
    """`squeeze_excitation` of the channels beside a weight s(w x + b) for each pixel, and their sum."""

    source = "https://arxiv.org/abs/1803.02579"
    parameters = {64: 4_257}
    at_zero, bound, blind = 1.0, 2.0, True
    name: Literal["scse"] = "scse"
    reduction: PositiveInt = 2
    """Channels per hidden unit; there is at least one unit."""
    join: Literal["sum", "max"] = "sum"
    """How the two meet: `sum`, as published, or the greater value, of a later paper (arXiv 1808.08127)."""

    def build(self, channels: int) -> nn.Module:
        from dltrain.layers.impl.attention import ConcurrentExcitation

        return ConcurrentExcitation(channels, self.reduction, self.join == "max")


class ConvolutionalBlockAttention(Attention):
    """Channels weighed by s(MLP(mean) + MLP(max)), then pixels by s(BN(conv[mean, max over the channels]))."""

    source = "https://arxiv.org/abs/1807.06521"
    parameters = {64: 612}
    at_zero, bound, blind = 0.25, 1.0, False
    name: Literal["cbam"] = "cbam"
    reduction: PositiveInt = 16
    """Channels per hidden unit; there is at least one unit."""
    kernel: PositiveInt = 7
    """Height and width of the convolution over the pixels: an odd number."""
    bias: bool = False
    """Give the layers of the MLP biases."""

    @field_validator("kernel")
    @classmethod
    def _odd_kernel(cls, value: int) -> int:
        return _odd(value)

    def build(self, channels: int) -> nn.Module:
        from dltrain.layers.impl.attention import ConvolutionalBlockAttention

        return ConvolutionalBlockAttention(channels, self.reduction, self.kernel, self.bias)


class EfficientChannelAttention(Attention):
    """Each channel weighed by a convolution over the means of neighbouring channels: x s(conv(mean(x)))."""

    source = "https://arxiv.org/abs/1910.03151"
    parameters = {64: 3, 128: 5, 256: 5, 512: 5, 1024: 5, 2048: 7}
    at_zero, bound, blind = 0.5, 1.0, True
    name: Literal["eca"] = "eca"
    kernel: PositiveInt | None = None
    """Channels that the convolution sees: an odd number, or null for (log2 C + 1) / 2, cut to an integer and
    made odd by adding 1 to an even one."""

    @field_validator("kernel")
    @classmethod
    def _odd_kernel(cls, value: int | None) -> int | None:
        return None if value is None else _odd(value)

    def build(self, channels: int) -> nn.Module:
        from dltrain.layers.impl.attention import EfficientChannelAttention

        width = int((math.log2(channels) + 1) / 2)
        return EfficientChannelAttention(self.kernel or width + 1 - width % 2)


def _odd(kernel: int) -> int:
    if kernel % 2 == 0:
        raise reject("kernel", f"`kernel` must be odd, so that maps keep their size, not {kernel}")
    return kernel
