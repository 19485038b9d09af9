"""Activations that look at more than one pixel: at the means of the maps, or at neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from dltrain.config import Positive, PositiveInt
from dltrain.layers.activations import Activation

if TYPE_CHECKING:
    from torch import nn


class OfMaps(Activation):
    """What these have in common: they take maps only."""

    needs_maps = True


class MetaAcon(OfMaps):
    """`acon_c` whose b is sigmoid(BN(W2 BN(W1 m))) of the means m of the maps, for each image and channel.

    (p1 - p2) x sigmoid(b (p1 - p2) x) + p2 x, with p1 and p2 learned for each channel.
    """

    source = "https://arxiv.org/abs/2009.04759"
    variants = (({"p1": 0.5, "p2": 0.5}, {-2.0: -1.0, 3.0: 1.5}),)
    parameters = {64: 2_416}
    name: Literal["meta_acon"] = "meta_acon"
    p1: float | None = None
    """The slope towards +infinity at the start; null draws one from N(0, 1) for each channel."""
    p2: float | None = None
    """The slope towards -infinity at the start; null draws it likewise."""
    reduction: PositiveInt = 16
    """Channels for each unit between W1 and W2, of which there are at least 16."""

    def build(self, channels: int) -> nn.Module:
        from dltrain.layers.impl.dynamic_activations import MetaAcon

        return MetaAcon(channels, self.p1, self.p2, self.reduction)


class DynamicReLU(OfMaps):
    """max(a_1 x + b_1, a_2 x + b_2) with slopes and offsets made of the means of the maps, for each image.

    t = 2 sigmoid(W2 relu(W1 m)) - 1 shifts them: a from (1, 0) by t, b from 0 by t / 2. W2 starts at 0 (our
    choice), unless `model.initialization` draws it: a ReLU at the start.
    """

    source = "https://arxiv.org/abs/2003.10027"
    fact = {-2.0: 0.0, 3.0: 3.0}
    shared: ClassVar[bool] = False
    reduction: PositiveInt = 8
    """Channels for each unit between W1 and W2, of which there are at least 4."""

    def build(self, channels: int) -> nn.Module:
        from dltrain.layers.impl.dynamic_activations import DynamicReLU

        return DynamicReLU(channels, self.reduction, self.shared)


class DynamicReLUA(DynamicReLU):
    """max(a_1 x + b_1, a_2 x + b_2), where the means of an image's maps give a and b, the same for all channels.

    t = 2 sigmoid(W2 relu(W1 m)) - 1 shifts a from (1, 0) by t, and b from 0 by t / 2. W2 starts at 0 (our
    choice), unless `model.initialization` draws it: a ReLU at the start.
    """

    parameters = {64: 556}
    shared = True
    name: Literal["dynamic_relu_a"] = "dynamic_relu_a"


class DynamicReLUB(DynamicReLU):
    """`dynamic_relu_a` with a and b for each channel: max(a_1 x + b_1, a_2 x + b_2)."""

    parameters = {64: 2_824}
    name: Literal["dynamic_relu_b"] = "dynamic_relu_b"


class DynamicReLUC(DynamicReLU):
    """`dynamic_relu_b` times a weight of each pixel: min(1, HW / 3 softmax(v x / temperature)) over the pixels.

    The weight of uniform maps is 1/3, so that the layer starts near ReLU / 3.
    """

    fact = {-2.0: 0.0, 3.0: 1.0}
    parameters = {64: 2_889}
    name: Literal["dynamic_relu_c"] = "dynamic_relu_c"
    temperature: Positive = 10.0
    """Larger values make the weights of the pixels more alike."""

    def build(self, channels: int) -> nn.Module:
        from dltrain.layers.impl.dynamic_activations import DynamicReLU

        return DynamicReLU(channels, self.reduction, self.shared, self.temperature)


class DynamicShiftMax(OfMaps):
    """max_k (a_k1 x_c + a_k2 x_{c + C/G}), k = 1, 2: mixes each channel with one of the next group.

    The means m of the maps give a for each image and channel: from (1, 0; 0, 0) shifted by
    2 reach (hard_sigmoid(W2 relu(W1 m)) - 1/2). W2 starts at 0 (our choice), unless `model.initialization` draws
    it: a ReLU at the start.
    """

    source = "https://arxiv.org/abs/2011.12289"
    fact = {-2.0: 0.0, 3.0: 3.0}
    parameters = {64: 5_392}
    name: Literal["dynamic_shift_max"] = "dynamic_shift_max"
    groups: Annotated[int, Field(ge=2)] = 2
    """G: the other channel is C / G (rounded down, at least 1) further on, cyclically."""
    reach: Positive = 1.0
    """The greatest shift of an a."""
    reduction: PositiveInt = 4
    """Channels for each unit between W1 and W2, of which there are at least 4."""

    def build(self, channels: int) -> nn.Module:
        from dltrain.layers.impl.dynamic_activations import DynamicShiftMax

        return DynamicShiftMax(channels, self.groups, self.reach, self.reduction)


class FReLU(OfMaps):
    """max(x, BN(w * x)) with a 3x3 convolution of each map alone: the funnel activation.

    Hidden layers of vectors get ReLU instead, as they have no neighbours.
    """

    source = "https://arxiv.org/abs/2007.11824"
    fact = {0.0: 0.0}
    parameters = {64: 768}
    name: Literal["frelu"] = "frelu"

    def build(self, channels: int) -> nn.Module:
        from dltrain.layers.impl.dynamic_activations import FReLU

        return FReLU(channels)

    def build_for_vectors(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.ReLU()
