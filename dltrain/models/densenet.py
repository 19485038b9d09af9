"""Densely connected networks for small images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dltrain.config import Fraction
from dltrain.data.types import ImageShape
from dltrain.models.native import NativeModel

if TYPE_CHECKING:
    from torch import nn

    from dltrain.models.impl.parts import Layers


class DenseNetCifar(NativeModel):
    """The dense networks for 32x32 images, each layer seeing all before it: depth 40 and growth 12, or, with
    bottlenecks and compression (BC), depth 100 and growth 12 or depth 190 and growth 40.
    """

    source = "https://arxiv.org/abs/1608.06993"
    parameters = {
        ("densenet_40_12", "3x32x32", 10): 1_019_722,
        ("densenet_bc_100_12", "3x32x32", 10): 769_162,
        ("densenet_bc_190_40", "3x32x32", 10): 25_624_430,
    }
    name: Literal["densenet_40_12", "densenet_bc_100_12", "densenet_bc_190_40"]
    dropout: Fraction = 0.0
    """Share of the values zeroed in training after each convolution; the paper takes 0.2 without augmentation."""

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.densenet import densenet_cifar

        compressed = "_bc_" in self.name
        depth, growth = map(int, self.name.split("_")[-2:])
        return densenet_cifar(depth, growth, compressed, shape.channels, outputs, parts, self.dropout)


class DenseNetSmall(NativeModel):
    """A small dense network for teaching: a stem as in ResNet, then four dense blocks of four layers, growth 32.

    Made for 96 pixels; it takes 29 and more.
    """

    source = "https://d2l.ai/chapter_convolutional-modern/densenet.html"
    parameters = {
        ("densenet_small", "3x32x32", 10): 764_498,
        ("densenet_small", "1x96x96", 10): 758_226,
    }
    name: Literal["densenet_small"] = "densenet_small"

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.densenet import densenet_small

        return densenet_small(shape.channels, outputs, parts)
