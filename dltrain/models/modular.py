"""GoogLeNet and ShuffleNet v1: networks of repeated modules with branches."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from dltrain.config import Fraction, Positive
from dltrain.data.types import ImageShape
from dltrain.layers.activations import Activation, ReLU6
from dltrain.layers.norms import Norm
from dltrain.models.native import NativeModel, PhotoModel

if TYPE_CHECKING:
    from torch import nn

    from dltrain.models.impl.parts import Layers

_SHUFFLE_WIDTHS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
"""Maps of the first stage, by the number of groups."""


class GoogLeNet(PhotoModel):
    """Nine inception modules with true 5x5 convolutions and two local response norms; winner of ILSVRC 2014.

    `norm` (`batch_norm`, as in Inception-BN) takes the place of the local response norms and follows every
    convolution. Made for 224 pixels; with the large stem smaller images are halved five times too.
    """

    source = "https://arxiv.org/abs/1409.4842"
    parameters = {
        ("googlenet", "3x224x224", 1000): 6_998_552,
        ("googlenet", "3x224x224", 10): 5_983_802,
        ("googlenet", "3x64x64", 10): 5_983_802,
    }
    published_norm: ClassVar[Norm | None] = None
    name: Literal["googlenet"] = "googlenet"
    dropout: Fraction = 0.4
    """Share of the last layer's inputs zeroed in training."""
    stem: Literal["auto", "small", "large"] = "large"
    """`large`: as published; `small`: the first convolution becomes 3x3 with stride 1, and the pool after it is left
    out; `auto`: small for images up to 64 pixels a side."""
    auxiliary: Positive | None = None
    """What the losses of the two auxiliary heads count in training (0.3 in the paper), or null for no such heads. The
    reported losses are those of the network's own output."""

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.modular import googlenet

        return googlenet(shape.channels, outputs, parts, self.dropout, auxiliary=self.auxiliary is not None)


class ShuffleNetV1(NativeModel):
    """Units of grouped 1x1 convolutions, a shuffle of the channels, and a 3x3 convolution of each map."""

    source = "https://arxiv.org/abs/1707.01083"
    parameters = {
        ("shufflenet_v1", "3x224x224", 1000): 1_865_728,
        ("shufflenet_v1", "3x224x224", 10): 914_338,
        ("shufflenet_v1", "3x64x64", 10): 914_338,
    }
    name: Literal["shufflenet_v1"] = "shufflenet_v1"
    groups: Literal[1, 2, 3, 4, 8] = 3
    """Groups of the 1x1 convolutions; the paper gives more groups more maps, so that the cost stays the same."""

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.modular import shufflenet_v1

        return shufflenet_v1(_SHUFFLE_WIDTHS[self.groups], self.groups, shape.channels, outputs, parts)


class NarrowMobileNetV1(PhotoModel):
    """MobileNet v1 with a quarter (`_025`), half or three quarters of the maps; `mobilenet_v1` has all of them."""

    source = "https://arxiv.org/abs/1704.04861"
    parameters = {
        ("mobilenet_v1_025", "3x224x224", 1000): 470_072,
        ("mobilenet_v1_050", "3x224x224", 1000): 1_331_592,
        ("mobilenet_v1_075", "3x224x224", 1000): 2_585_560,
        ("mobilenet_v1_025", "3x32x32", 10): 215_642,
    }
    published_activation: ClassVar[Activation] = ReLU6()
    name: Literal["mobilenet_v1_025", "mobilenet_v1_050", "mobilenet_v1_075"]

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.modular import mobilenet_v1

        return mobilenet_v1(int(self.name[-3:]) / 100, shape.channels, outputs, parts)
