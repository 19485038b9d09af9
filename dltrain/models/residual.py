"""Residual networks for small images: with pre-activation, wide, and with grouped convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dltrain.config import Fraction
from dltrain.data.types import ImageShape
from dltrain.models.native import NativeModel

if TYPE_CHECKING:
    from torch import nn

    from dltrain.models.impl.parts import Layers


class PreActCifarResNet(NativeModel):
    """The residual networks for 32x32 images of 6n + 2 layers, with norm and activation before each convolution and
    shortcuts free of parameters (option A).
    """

    source = "https://arxiv.org/abs/1603.05027"
    parameters = {
        ("preact_resnet20", "3x32x32", 10): 269_722,
        ("preact_resnet32", "3x32x32", 10): 464_154,
        ("preact_resnet44", "3x32x32", 10): 658_586,
        ("preact_resnet56", "3x32x32", 10): 853_018,
        ("preact_resnet110", "3x32x32", 10): 1_727_962,
    }
    name: Literal["preact_resnet20", "preact_resnet32", "preact_resnet44", "preact_resnet56", "preact_resnet110"]

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.residual import preact_resnet

        depth = int(self.name.removeprefix("preact_resnet"))
        return preact_resnet("basic", (depth - 2) // 6, shape.channels, outputs, parts)


class PreActCifarBottleneck(NativeModel):
    """The deep residual networks for 32x32 images of 9n + 2 layers, with pre-activation bottlenecks and 1x1 shortcuts
    where the shape changes.
    """

    source = "https://arxiv.org/abs/1603.05027"
    parameters = {
        ("preact_resnet164", "3x32x32", 10): 1_703_258,
        ("preact_resnet1001", "3x32x32", 10): 10_327_706,
    }
    name: Literal["preact_resnet164", "preact_resnet1001"]

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.residual import preact_resnet

        depth = int(self.name.removeprefix("preact_resnet"))
        return preact_resnet("bottleneck", (depth - 2) // 9, shape.channels, outputs, parts, projection=True)


class WideResNet(NativeModel):
    """Wide residual networks for 32x32 images: `wide_resnet_28_10` has 28 layers, 10 times as wide as ResNet's, with
    pre-activation and 1x1 shortcuts where the shape changes.
    """

    source = "https://arxiv.org/abs/1605.07146"
    parameters = {
        ("wide_resnet_16_4", "3x32x32", 10): 2_748_890,
        ("wide_resnet_16_8", "3x32x32", 10): 10_961_370,
        ("wide_resnet_28_10", "3x32x32", 10): 36_479_194,
        ("wide_resnet_40_1", "3x32x32", 10): 563_930,
        ("wide_resnet_40_2", "3x32x32", 10): 2_243_546,
        ("wide_resnet_40_4", "3x32x32", 10): 8_949_210,
    }
    name: Literal[
        "wide_resnet_16_4", "wide_resnet_16_8", "wide_resnet_28_10",
        "wide_resnet_40_1", "wide_resnet_40_2", "wide_resnet_40_4",
    ]  # fmt: skip
    dropout: Fraction = 0.3
    """Share of the values zeroed in training between the two convolutions of a block."""

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.residual import preact_resnet

        depth, width = map(int, self.name.removeprefix("wide_resnet_").split("_"))
        blocks, dropout = (depth - 4) // 6, self.dropout
        return preact_resnet("basic", blocks, shape.channels, outputs, parts, width, projection=True, dropout=dropout)


class ResNeXtCifar(NativeModel):
    """The ResNeXt for 32x32 images: `resnext29_8x64d` has 29 layers, and 8 groups of 64 channels in its first stage."""

    source = "https://arxiv.org/abs/1611.05431"
    parameters = {
        ("resnext29_8x64d", "3x32x32", 10): 34_426_698,
        ("resnext29_16x64d", "3x32x32", 10): 68_155_210,
    }
    name: Literal["resnext29_8x64d", "resnext29_16x64d"]

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.residual import resnext_cifar

        groups, width = map(int, self.name.removeprefix("resnext29_").removesuffix("d").split("x"))
        return resnext_cifar(29, groups, width, shape.channels, outputs, parts)
