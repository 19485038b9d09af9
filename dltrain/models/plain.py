"""Networks that are one chain of convolutions: AlexNet, ZFNet, network in network, VGG for small images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from dltrain.config import Fraction
from dltrain.data.types import ImageShape
from dltrain.layers.norms import LocalResponseNorm, Norm
from dltrain.models.native import NativeModel

if TYPE_CHECKING:
    from torch import nn

    from dltrain.models.impl.parts import Layers

_VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each stage, by depth."""


class AlexNet(NativeModel):
    """AlexNet of 2012: five convolutions, three of them in two groups, local response norm after the first two, and
    hidden layers of 4096 units.

    Weights start from N(0, 0.01), biases at 1 in convolutions 2, 4 and 5 and in the hidden layers. `norm`
    takes the place of the two local response norms. Made for 224 pixels.
    """

    source = "Krizhevsky et al. 2012"
    parameters = {
        ("alexnet", "3x224x224", 1000): 60_965_224,
        ("alexnet", "3x224x224", 10): 56_909_194,
        ("alexnet", "3x64x64", 10): 20_209_034,
    }
    published_norm: ClassVar[Norm | None] = LocalResponseNorm()
    name: Literal["alexnet"] = "alexnet"
    dropout: Fraction = 0.5
    """Share of the hidden units of both 4096-unit layers that is zeroed in training."""

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.plain import alexnet

        return alexnet(shape, outputs, parts, self.dropout)


class ZFNet(NativeModel):
    """AlexNet with a first layer of 7x7 and stride 2, and without groups; winner of ILSVRC 2013.

    The contrast normalisation across maps after the first two pools is a local response norm here; `norm`
    takes its place. Weights start from N(0, 0.01), biases at 0. Made for 224 pixels.
    """

    source = "https://arxiv.org/abs/1311.2901"
    parameters = {
        ("zfnet", "3x224x224", 1000): 62_357_608,
        ("zfnet", "3x224x224", 10): 58_301_578,
        ("zfnet", "3x64x64", 10): 21_601_418,
    }
    published_norm: ClassVar[Norm | None] = LocalResponseNorm()
    name: Literal["zfnet"] = "zfnet"
    dropout: Fraction = 0.5
    """Share of the hidden units of both 4096-unit layers that is zeroed in training."""

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.plain import zfnet

        return zfnet(shape, outputs, parts, self.dropout)


class NetworkInNetwork(NativeModel):
    """Convolutions of 11x11, 5x5, 3x3 and 3x3, each followed by two of 1x1; the logits are means of maps.

    The ReLU that follows these maps in the authors' code is left out: it kills them in the first steps. `norm`, when
    set, follows each convolution, the last one too. Made for 224 pixels.
    """

    source = "https://arxiv.org/abs/1312.4400"
    parameters = {
        ("nin", "3x224x224", 1000): 7_439_608,
        ("nin", "3x224x224", 10): 2_015_398,
        ("nin", "1x224x224", 10): 1_992_166,
        ("nin", "3x67x67", 10): 2_015_398,
    }
    published_norm: ClassVar[Norm | None] = None
    name: Literal["nin"] = "nin"
    dropout: Fraction = 0.5
    """Share of the values zeroed in training before the last block."""

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.plain import nin

        return nin(shape, outputs, parts, self.dropout)


class NetworkInNetworkCifar(NativeModel):
    """The network in network for 32x32 images: 5x5, 5x5 and 3x3 convolutions, each followed by two of 1x1.

    The ReLU that follows the last maps in the authors' code is left out: it kills them in the first steps. `norm`, when
    set, follows each convolution, the last one too.
    """

    source = "https://arxiv.org/abs/1312.4400"
    parameters = {("nin_cifar", "3x32x32", 10): 966_986}
    published_norm: ClassVar[Norm | None] = None
    name: Literal["nin_cifar"] = "nin_cifar"
    dropout: Fraction = 0.5
    """Share of the values zeroed in training after each pool."""

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.plain import nin_cifar

        return nin_cifar(shape, outputs, parts, self.dropout)


class VGGCifar(NativeModel):
    """VGG for 32x32 images: batch norm, dropout between the convolutions, and one hidden layer of 512 units.

    The form with 16 layers is Liu & Deng's (2015), which Zagoruyko trained to 92.45 % on CIFAR-10; the
    others have the stages of VGG-11, 13 and 19.
    """

    source = "Liu & Deng 2015; https://arxiv.org/abs/1409.1556"
    parameters = {
        ("vgg11_cifar", "3x32x32", 10): 9_494_794,
        ("vgg13_cifar", "3x32x32", 10): 9_679_690,
        ("vgg16_cifar", "3x32x32", 10): 14_991_946,
        ("vgg19_cifar", "3x32x32", 10): 20_304_202,
    }
    name: Literal["vgg11_cifar", "vgg13_cifar", "vgg16_cifar", "vgg19_cifar"]
    dropout: Fraction | None = None
    """Share of the values zeroed in training, or null for 0.3 in the first stage, 0.4 in the later ones and 0.5 at
    the hidden layer."""

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.plain import vgg_cifar

        depth = int(self.name.removeprefix("vgg").removesuffix("_cifar"))
        return vgg_cifar(_VGG[depth], shape, outputs, parts, self.dropout)
