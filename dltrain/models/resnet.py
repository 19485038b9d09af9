"""Residual networks for small images, as in the paper's section on CIFAR-10."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dltrain.data.types import ImageShape
from dltrain.models.native import NativeModel

if TYPE_CHECKING:
    from torch import nn

    from dltrain.models.impl.parts import Layers


class CifarResNet(NativeModel):
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

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.resnet import cifar_resnet

        return cifar_resnet(int(self.name.removeprefix("resnet")), shape.channels, outputs, parts)
