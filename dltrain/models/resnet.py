"""Residual networks: torchvision's for photos, and those of the same paper for small images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from dltrain.config import reject
from dltrain.data.base import ImageShape
from dltrain.layers.activations import Activation, ReLU
from dltrain.layers.attention import Attention
from dltrain.layers.norms import BatchNorm, Norm
from dltrain.models.base import Model, Preprocessing

if TYPE_CHECKING:
    from torch import nn

_SMALL = 64
"""Images up to this many pixels a side get the small stem under `auto`."""


class ResNet(Model):
    """The residual networks for photos, in torchvision's form: the stride of a bottleneck is on its 3x3 convolution."""

    source = "https://arxiv.org/abs/1512.03385"
    parameters = {
        ("resnet18", "3x224x224", 1000): 11_689_512,
        ("resnet18", "3x224x224", 10): 11_181_642,
        ("resnet18", "3x32x32", 10): 11_173_962,
        ("resnet34", "3x224x224", 10): 21_289_802,
        ("resnet50", "3x224x224", 10): 23_528_522,
        ("resnet101", "3x224x224", 10): 42_520_650,
        ("resnet152", "3x224x224", 10): 58_164_298,
    }
    name: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
    stem: Literal["auto", "small", "large"] = "auto"
    """`large`: 7x7 convolution with stride 2 and a pool, as published; `small`: 3x3 with stride 1 and no pool;
    `auto`: small for images up to 64 pixels a side, large above and with pretrained weights."""
    pretrained: bool = False
    """Start from torchvision's ImageNet weights (its best set); the last layer starts random."""

    @model_validator(mode="after")
    def _pretrained_stem(self) -> ResNet:
        if self.pretrained and self.stem == "small":
            raise reject("stem", "pretrained weights have the large stem; use `stem: large`, or `pretrained: false`")
        return self

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        from dltrain.models.networks import from_torchvision

        network = from_torchvision.build(self.name, shape, classes, pretrained=self.pretrained)
        small = self.stem == "auto" and max(shape.height, shape.width) <= _SMALL and not self.pretrained
        return from_torchvision.small_stem(network) if small or self.stem == "small" else network

    def preprocessing(self) -> Preprocessing | None:
        from dltrain.models.networks import from_torchvision

        return from_torchvision.preprocessing(self.name) if self.pretrained else None


class CifarResNet(Model):
    """The residual networks for 32x32 images, of 6n + 2 layers, with shortcuts free of parameters (option A)."""

    source = "https://arxiv.org/abs/1512.03385"
    parameters = {
        ("resnet20", "3x32x32", 10): 269_722,
        ("resnet32", "3x32x32", 10): 464_154,
        ("resnet44", "3x32x32", 10): 658_586,
        ("resnet56", "3x32x32", 10): 853_018,
        ("resnet110", "3x32x32", 10): 1_727_962,
    }
    name: Literal["resnet20", "resnet32", "resnet44", "resnet56", "resnet110"]
    activation: Activation | None = None
    """The function after each norm, or null for ReLU."""
    norm: Norm | None = None
    """The normalisation after each convolution, or null for batch_norm."""
    attention: Attention | None = None
    """A gate on each residual branch, before the addition; null for none."""

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        from dltrain.models.networks.cifar_resnet import cifar_resnet

        activation, norm = self.activation or ReLU(), self.norm or BatchNorm()
        depth = int(self.name.removeprefix("resnet"))
        layers = [activation.build, norm.build]
        if self.attention is not None:
            layers.append(self.attention.build)
        return cifar_resnet(depth, shape.channels, classes, *layers)
