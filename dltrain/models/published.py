"""Published networks that torchvision or timm has in the published form, under names of their own.

Each class is a family with its paper. `libraries` says where a network comes from: the library whose form
is the published one, torchvision where both are, but timm where only its form takes other activations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal

from dltrain.models.libraries import LibraryModel, WithAuxiliaryHeads

_Counts = dict[tuple[str, str, int], int]


class PublishedModel(LibraryModel):
    """A network of a library, by its published name."""

    libraries: ClassVar[Mapping[str, str]] = {}
    """Our name -> the library's."""
    stem: Literal["auto", "small", "large"] = "auto"
    """`large`: as published; `small`: the first convolution becomes 3x3 with stride 1, and the pool after it is left
    out; `auto`: small for images up to 64 pixels a side, where the network has such a stem."""

    @classmethod
    def names(cls) -> Iterable[str]:
        return cls.libraries

    def library_name(self) -> str:
        return self.libraries[self.name]


def _imagenet(**counts: int) -> _Counts:
    """Numbers of parameters for 1000 classes."""
    return {(name, "3x224x224", 1000): count for name, count in counts.items()}


def _torchvision(*names: str) -> dict[str, str]:
    return {name: f"torchvision/{name}" for name in names}


class ResNet(PublishedModel):
    """The residual networks for photos, in torchvision's form: the stride of a bottleneck is on its 3x3 convolution."""

    source = "https://arxiv.org/abs/1512.03385"
    libraries = _torchvision("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
    parameters = {
        ("resnet18", "3x224x224", 1000): 11_689_512,
        ("resnet18", "3x224x224", 10): 11_181_642,
        ("resnet18", "3x32x32", 10): 11_173_962,
        ("resnet34", "3x224x224", 1000): 21_797_672,
        ("resnet34", "3x224x224", 10): 21_289_802,
        ("resnet50", "3x224x224", 1000): 25_557_032,
        ("resnet50", "3x224x224", 10): 23_528_522,
        ("resnet101", "3x224x224", 1000): 44_549_160,
        ("resnet101", "3x224x224", 10): 42_520_650,
        ("resnet152", "3x224x224", 1000): 60_192_808,
        ("resnet152", "3x224x224", 10): 58_164_298,
    }
    name: str


class AlexNetOneTower(PublishedModel):
    """AlexNet in the form of 2014 (one weird trick): 64-192-384-256-256 maps, without groups and response norms."""

    source = "https://arxiv.org/abs/1404.5997"
    libraries = {"alexnet_owt": "torchvision/alexnet"}
    parameters = _imagenet(alexnet_owt=61_100_840) | {("alexnet_owt", "3x224x224", 10): 57_044_810}
    name: str


class VGG(PublishedModel):
    """Stages of 3x3 convolutions and 2x2 pools, then hidden layers of 4096 units; `_bn` has batch norm."""

    source = "https://arxiv.org/abs/1409.1556"
    libraries = _torchvision(
        "vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"
    )  # fmt: skip
    parameters = _imagenet(
        vgg11=132_863_336, vgg13=133_047_848, vgg16=138_357_544, vgg19=143_667_240,
        vgg11_bn=132_868_840, vgg13_bn=133_053_736, vgg16_bn=138_365_992, vgg19_bn=143_678_248,
    )  # fmt: skip
    name: str


class PreActResNet(PublishedModel):
    """The residual networks for photos with norm and activation before each convolution."""

    source = "https://arxiv.org/abs/1603.05027"
    libraries = {f"preact_resnet{depth}": f"timm/resnetv2_{depth}" for depth in (18, 50, 101, 152)}
    parameters = _imagenet(
        preact_resnet18=11_687_720, preact_resnet50=25_549_352, preact_resnet101=44_541_480,
        preact_resnet152=60_185_128,
    )  # fmt: skip
    name: str


class WideResNetForPhotos(PublishedModel):
    """ResNet-50 and 101 with twice as many channels in the middle of each bottleneck."""

    source = "https://arxiv.org/abs/1605.07146"
    libraries = _torchvision("wide_resnet50_2", "wide_resnet101_2")
    parameters = _imagenet(wide_resnet50_2=68_883_240, wide_resnet101_2=126_886_696)
    name: str


class ResNeXt(PublishedModel):
    """Bottlenecks whose 3x3 convolution is grouped: `resnext50_32x4d` starts with 32 groups of 4 channels."""

    source = "https://arxiv.org/abs/1611.05431"
    libraries = _torchvision("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d")
    parameters = _imagenet(resnext50_32x4d=25_028_904, resnext101_32x8d=88_791_336, resnext101_64x4d=83_455_272)
    name: str


class DenseNet(PublishedModel):
    """Dense blocks in which each layer sees all before it, with bottlenecks and compression; growth 32 (161: 48)."""

    source = "https://arxiv.org/abs/1608.06993"
    libraries = _torchvision("densenet121", "densenet169", "densenet201", "densenet161")
    parameters = _imagenet(
        densenet121=7_978_856, densenet169=14_149_480, densenet201=20_013_928, densenet161=28_681_000
    )
    name: str


class InceptionV3(PublishedModel, WithAuxiliaryHeads):
    """Inception with factorised 7x7 convolutions; made for 299 pixels, at least 75. With the auxiliary head it is
    torchvision's, which needs 299 pixels, and whose activations cannot be exchanged.
    """

    source = "https://arxiv.org/abs/1512.00567"
    libraries = {"inception_v3": "timm/inception_v3"}
    parameters = _imagenet(inception_v3=23_834_568)
    name: str

    def library_name(self) -> str:
        return "torchvision/inception_v3" if self.auxiliary is not None else super().library_name()


class InceptionResNetV2(PublishedModel):
    """Inception modules with scaled residual connections; made for 299 pixels, at least 75."""

    source = "https://arxiv.org/abs/1602.07261"
    libraries = {"inception_resnet_v2": "timm/inception_resnet_v2"}
    parameters = _imagenet(inception_resnet_v2=55_843_464)
    name: str


class Xception(PublishedModel):
    """Depthwise separable convolutions with residual connections; made for 299 pixels."""

    source = "https://arxiv.org/abs/1610.02357"
    libraries = {"xception": "timm/legacy_xception"}
    parameters = _imagenet(xception=22_855_952)
    name: str


class SENet(PublishedModel):
    """Residual networks with squeeze-and-excitation in each block; winner of ILSVRC 2017."""

    source = "https://arxiv.org/abs/1709.01507"
    libraries = {"senet154": "timm/senet154"} | {
        f"se_resnet{depth}": f"timm/legacy_seresnet{depth}" for depth in (18, 34, 50, 101, 152)
    }
    parameters = _imagenet(
        senet154=115_088_984, se_resnet18=11_778_592, se_resnet34=21_958_868, se_resnet50=28_088_024,
        se_resnet101=49_326_872, se_resnet152=66_821_848,
    )  # fmt: skip
    name: str

    def library_name(self) -> str:
        """timm's legacy form has the published squeeze in all sizes, but calls one activation for several widths in
        the bottlenecks; to exchange it there, the other form, of as many parameters."""
        bottlenecks = self.name in ("se_resnet50", "se_resnet101", "se_resnet152")
        if bottlenecks and self.activation is not None and not self.pretrained:
            return f"timm/seresnet{self.name.removeprefix('se_resnet')}"
        return super().library_name()


class SqueezeNet(PublishedModel):
    """Fire modules: a 1x1 convolution to few maps, then 1x1 and 3x3 convolutions side by side."""

    source = "https://arxiv.org/abs/1602.07360"
    libraries = _torchvision("squeezenet1_0", "squeezenet1_1")
    parameters = _imagenet(squeezenet1_0=1_248_424, squeezenet1_1=1_235_496) | {
        ("squeezenet1_0", "3x224x224", 10): 740_554
    }
    name: str


class MobileNetV1(PublishedModel):
    """Thirteen depthwise separable convolutions."""

    source = "https://arxiv.org/abs/1704.04861"
    libraries = {"mobilenet_v1": "timm/mobilenetv1_100"}
    parameters = _imagenet(mobilenet_v1=4_231_976) | {("mobilenet_v1", "3x224x224", 10): 3_217_226}
    name: str


class MobileNetV2(PublishedModel):
    """Inverted residuals with linear bottlenecks and ReLU6."""

    source = "https://arxiv.org/abs/1801.04381"
    libraries = _torchvision("mobilenet_v2")
    parameters = _imagenet(mobilenet_v2=3_504_872) | {("mobilenet_v2", "3x224x224", 10): 2_236_682}
    name: str


class MobileNetV3(PublishedModel):
    """Inverted residuals with squeeze-and-excitation and hard swish, found by a search for phones; `_075` has three
    quarters of the maps.
    """

    source = "https://arxiv.org/abs/1905.02244"
    libraries = _torchvision("mobilenet_v3_large", "mobilenet_v3_small") | {
        f"mobilenet_v3_{size}_075": f"timm/mobilenetv3_{size}_075" for size in ("large", "small")
    }
    parameters = _imagenet(
        mobilenet_v3_large=5_483_032, mobilenet_v3_small=2_542_856, mobilenet_v3_large_075=3_993_528,
        mobilenet_v3_small_075=2_041_872,
    )  # fmt: skip
    name: str


class ShuffleNetV2(PublishedModel):
    """Units that split the channels, work on one half, concatenate and shuffle."""

    source = "https://arxiv.org/abs/1807.11164"
    libraries = _torchvision("shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0")
    parameters = _imagenet(
        shufflenet_v2_x0_5=1_366_792, shufflenet_v2_x1_0=2_278_604, shufflenet_v2_x1_5=3_503_624,
        shufflenet_v2_x2_0=7_393_996,
    )  # fmt: skip
    name: str


class GhostNet(PublishedModel):
    """Half of the maps are made from the other half by cheap depthwise convolutions; `_050` has half of the maps."""

    source = "https://arxiv.org/abs/1911.11907"
    libraries = {"ghostnet": "timm/ghostnet_100", "ghostnet_050": "timm/ghostnet_050"}
    parameters = _imagenet(ghostnet=5_182_508, ghostnet_050=2_587_292)
    name: str


class NASNetLarge(PublishedModel):
    """Normal and reduction cells found by a search, six of each kind a stage, 4032 maps at the end."""

    source = "https://arxiv.org/abs/1707.07012"
    libraries = {"nasnet_large": "timm/nasnetalarge"}
    parameters = _imagenet(nasnet_large=88_753_150)
    name: str


class EfficientNet(PublishedModel):
    """Inverted residuals with squeeze-and-excitation and swish; depth, width and size grow together from b0 to b7."""

    source = "https://arxiv.org/abs/1905.11946"
    libraries = _torchvision(*(f"efficientnet_b{size}" for size in range(8)))
    parameters = _imagenet(
        efficientnet_b0=5_288_548, efficientnet_b1=7_794_184, efficientnet_b2=9_109_994, efficientnet_b3=12_233_232,
        efficientnet_b4=19_341_616, efficientnet_b5=30_389_784, efficientnet_b6=43_040_704, efficientnet_b7=66_347_960,
    )  # fmt: skip
    name: str
