"""Layers for networks of one's own that are blocks of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from dltrain.config import PositiveInt, reject
from dltrain.models.building_layers import BuildingLayer, Dimensions, NonNegativeInt

if TYPE_CHECKING:
    from torch import nn

    from dltrain.models.impl.parts import Layers


class VGGBlock(BuildingLayer):
    """Some 3x3 convolutions that keep the size, each with the model's norm and activation, then a 2x2 pool."""

    source = "https://arxiv.org/abs/1409.1556"
    name: Literal["vgg_block"] = "vgg_block"
    convolutions: PositiveInt = 1
    """How many there are."""
    channels: PositiveInt
    """Maps of each."""

    def build(self, given: Dimensions, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.building_blocks import vgg_block

        return vgg_block(given[0], self.convolutions, self.channels, parts)


class NiNBlock(BuildingLayer):
    """A convolution and two of 1x1, each with the model's norm and activation: a small perceptron at each pixel."""

    source = "https://arxiv.org/abs/1312.4400"
    name: Literal["nin_block"] = "nin_block"
    channels: PositiveInt | None = None
    """Maps of all three; null for as many as the task wants outputs."""
    kernel: PositiveInt = 3
    """Height and width of the first window."""
    stride: PositiveInt = 1
    """Pixels from one of these windows to the next."""
    padding: NonNegativeInt = 0
    """Zeros around the maps."""

    def build(self, given: Dimensions, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.building_blocks import nin_block

        return nin_block(given[0], self.channels or outputs, self.kernel, self.stride, self.padding, parts)


class InceptionBlock(BuildingLayer):
    """Four branches side by side, whose maps are joined: 1x1, 1x1 and 3x3, 1x1 and 5x5, 3x3 max pool and 1x1."""

    source = "https://arxiv.org/abs/1409.4842"
    name: Literal["inception_block"] = "inception_block"
    channels: Annotated[list[PositiveInt], Field(min_length=6, max_length=6)]
    """Maps of: 1x1; 1x1 before 3x3, 3x3; 1x1 before 5x5, 5x5; 1x1 after the pool."""

    def build(self, given: Dimensions, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.modular import Inception

        one, three_reduced, three, five_reduced, five, pool = self.channels
        return Inception(given[0], (one, three_reduced, three, five_reduced, five, pool), parts)


class ResidualBlock(BuildingLayer):
    """act(F(x) + shortcut(x)), where F is two 3x3 convolutions, or 1x1, 3x3 and 1x1 (bottleneck), with norms.

    The shortcut is a 1x1 convolution with a norm where the number or the size of the maps changes, else x.
    """

    source = "https://arxiv.org/abs/1512.03385"
    name: Literal["residual_block"] = "residual_block"
    channels: PositiveInt
    """Maps that it puts out."""
    stride: PositiveInt = 1
    """Of the first 3x3 convolution."""
    bottleneck: bool = False
    """Whether F is 1x1, 3x3 and 1x1, with a quarter of the maps inside."""

    @model_validator(mode="after")
    def _quarter(self) -> ResidualBlock:
        if self.bottleneck and self.channels % 4:
            raise reject("channels", f"with `bottleneck`, `channels` must be a multiple of 4, not {self.channels}")
        return self

    def build(self, given: Dimensions, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.building_blocks import ResidualBlock

        return ResidualBlock(given[0], self.channels, self.stride, self.bottleneck, parts)


class DenseBlock(BuildingLayer):
    """Layers of norm, activation and 3x3 convolution, each on the maps of all before it: C + layers * growth maps."""

    source = "https://arxiv.org/abs/1608.06993"
    name: Literal["dense_block"] = "dense_block"
    layers: PositiveInt = 4
    """How many there are."""
    growth: PositiveInt = 32
    """Maps that each adds."""
    bottleneck: bool = False
    """Whether a 1x1 convolution to 4 growth maps comes before each 3x3 convolution."""
    bias: bool = True
    """Whether the convolutions add a number to each map."""

    def build(self, given: Dimensions, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.building_blocks import dense_block

        return dense_block(given[0], self.layers, self.growth, self.bottleneck, self.bias, parts)


class Transition(BuildingLayer):
    """Norm, activation, a 1x1 convolution to fewer maps and a 2x2 average pool, between dense blocks."""

    source = "https://arxiv.org/abs/1608.06993"
    name: Literal["transition"] = "transition"
    compression: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the maps that remain, rounded down."""
    bias: bool = True
    """Whether the convolution adds a number to each map."""

    def build(self, given: Dimensions, outputs: int, parts: Layers) -> nn.Module:
        from torch import nn

        from dltrain.models.impl.densenet import transition

        out = max(int(given[0] * self.compression), 1)
        return nn.Sequential(*transition(given[0], out, parts, bias=self.bias))


class SeparableConv(BuildingLayer):
    """A convolution of each map alone, then one of 1x1, each with the model's norm and activation."""

    source = "https://arxiv.org/abs/1704.04861"
    name: Literal["separable_conv"] = "separable_conv"
    channels: PositiveInt
    """Maps that it puts out."""
    kernel: PositiveInt = 3
    """Height and width of the first window: an odd number."""
    stride: PositiveInt = 1
    """Of the first convolution."""

    def build(self, given: Dimensions, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.building_blocks import separable_conv

        return separable_conv(given[0], self.channels, self.kernel, self.stride, parts)


class ShuffleBlock(BuildingLayer):
    """ShuffleNet's unit: 1x1 convolution in groups, channel shuffle, 3x3 of each map, 1x1 in groups; with stride 1 its
    input is added, with stride 2 its pooled input is joined."""

    source = "https://arxiv.org/abs/1707.01083"
    name: Literal["shuffle_block"] = "shuffle_block"
    channels: PositiveInt
    """Maps that it puts out: a multiple of 4, and of 4 times the groups."""
    groups: PositiveInt = 3
    """Groups of the 1x1 convolutions."""
    stride: Literal[1, 2] = 1
    """1 keeps the size and the number of maps; 2 halves the size."""

    def build(self, given: Dimensions, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.building_blocks import shuffle_block

        return shuffle_block(given[0], self.channels, self.groups, self.stride, parts)


class Repeat(BuildingLayer):
    """The same layers several times, each time with weights of their own."""

    takes = "both"
    name: Literal["repeat"] = "repeat"
    times: PositiveInt
    """How often."""
    layers: Annotated[list[BuildingLayer], Field(min_length=1)]
    """What is repeated."""

    def build(self, given: Dimensions, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.building_layers import chain

        return chain(self.layers * self.times, given, outputs, parts)[0]
