"""The kind `BuildingLayer`: what a network of one's own is made of, in `model: {name: sequential}`; single layers."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from dltrain.config import Choice, Fraction, PositiveInt, reject
from dltrain.layers.activations import Activation
from dltrain.layers.norms import BatchNorm, Norm

if TYPE_CHECKING:
    from torch import nn

    from dltrain.models.impl.parts import Layers

Dimensions = tuple[int, ...]
"""Of what a layer gets of one example: (C, H, W) maps, or (N,) a vector."""
NonNegativeInt = Annotated[int, Field(ge=0)]


class BuildingLayer(Choice):
    """A layer, or a block of layers, of a sequential network.

    `takes` says whether it works on maps (C, H, W), on a vector (N,), or on both.
    """

    kind: ClassVar[str] = "layers"
    takes: ClassVar[Literal["maps", "vectors", "both"]] = "maps"

    @abstractmethod
    def build(self, given: Dimensions, outputs: int, parts: Layers) -> nn.Module:
        """The module for examples of `given` dimensions. outputs: how many numbers the task wants of the network.

        Raises ValueError when it cannot work on them.
        """


class Conv(BuildingLayer):
    """A convolution, alone: no norm and no activation follow it. (H + 2 padding - kernel) / stride + 1 rows remain."""

    name: Literal["conv"] = "conv"
    channels: PositiveInt | None = None
    """Maps that it puts out; null for as many as the task wants outputs."""
    kernel: PositiveInt = 3
    """Height and width of the window."""
    stride: PositiveInt = 1
    """Pixels from one window to the next."""
    padding: NonNegativeInt | Literal["same"] = 0
    """Zeros around the maps; `same` keeps their size (for stride 1)."""
    groups: PositiveInt = 1
    """Groups of maps that do not see each other."""
    bias: bool = True
    """Whether a number is added to each map."""

    @model_validator(mode="after")
    def _same_size(self) -> Conv:
        if self.padding == "same" and self.stride > 1:
            raise reject("padding", "`padding: same` needs `stride: 1`; write the number of pixels")
        return self

    def build(self, given: Dimensions, outputs: int, parts: Layers) -> nn.Module:
        from torch import nn

        out = self.channels or outputs
        return nn.Conv2d(given[0], out, self.kernel, self.stride, self.padding, groups=self.groups, bias=self.bias)


class Linear(BuildingLayer):
    """An affine layer, alone: y = x W^T + b."""

    takes = "vectors"
    name: Literal["linear"] = "linear"
    units: PositiveInt | None = None
    """Numbers that it puts out; null for as many as the task wants outputs."""
    bias: bool = True
    """Whether b is there."""

    def build(self, given: Dimensions, outputs: int, parts: Layers) -> nn.Module:
        from torch import nn

        return nn.Linear(given[0], self.units or outputs, bias=self.bias)


class ActivationLayer(BuildingLayer):
    """The model's activation, or another one."""

    takes = "both"
    name: Literal["activation"] = "activation"
    function: Activation | None = None
    """Which one; null for the model's `activation`."""

    def build(self, given: Dimensions, outputs: int, parts: Layers) -> nn.Module:
        if self.function is not None:
            make = self.function.build if len(given) == 3 else self.function.build_for_vectors
            return make(given[0])
        return (parts.activation if len(given) == 3 else parts.vector_activation)(given[0])


class NormLayer(BuildingLayer):
    """The model's norm, or another one; batch norm where the model has none."""

    takes = "both"
    name: Literal["norm"] = "norm"
    function: Norm | None = None
    """Which one; null for the model's `norm`, or batch norm."""

    def build(self, given: Dimensions, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.layers.impl.modules import OnVectors

        make = self.function.build if self.function is not None else parts.make_norm or BatchNorm().build
        return make(given[0]) if len(given) == 3 else OnVectors(make(given[0]))


class Pool(BuildingLayer):
    """The largest value, or the mean, of each window of each map."""

    name: Literal["pool"] = "pool"
    type: Literal["max", "average"] = "max"
    """What is taken of a window."""
    kernel: PositiveInt = 2
    """Height and width of the window."""
    stride: PositiveInt | None = None
    """Pixels from one window to the next; null for the side of the window."""
    padding: NonNegativeInt = 0
    """Pixels around the maps that do not count."""
    ceil: bool = False
    """Whether a last window that the maps fill only in part counts."""

    @model_validator(mode="after")
    def _padding_of_half_a_window(self) -> Pool:
        if 2 * self.padding > self.kernel:
            raise reject("padding", f"`padding` can be half of `kernel` at most: {self.kernel // 2}")
        return self

    def build(self, given: Dimensions, outputs: int, parts: Layers) -> nn.Module:
        from torch import nn

        kind = nn.MaxPool2d if self.type == "max" else nn.AvgPool2d
        return kind(self.kernel, self.stride, self.padding, ceil_mode=self.ceil)


class GlobalPool(BuildingLayer):
    """The mean, or the largest value, of each map: maps become a vector, whatever their size."""

    name: Literal["global_pool"] = "global_pool"
    type: Literal["average", "max"] = "average"
    """What is taken of a map."""

    def build(self, given: Dimensions, outputs: int, parts: Layers) -> nn.Module:
        from torch import nn

        pool = nn.AdaptiveAvgPool2d(1) if self.type == "average" else nn.AdaptiveMaxPool2d(1)
        return nn.Sequential(pool, nn.Flatten())


class Flatten(BuildingLayer):
    """The maps as one vector."""

    name: Literal["flatten"] = "flatten"

    def build(self, given: Dimensions, outputs: int, parts: Layers) -> nn.Module:
        from torch import nn

        return nn.Flatten()


class DropoutLayer(BuildingLayer):
    """Zeros a share of the values in training, and scales the rest."""

    takes = "both"
    source = "https://jmlr.org/papers/v15/srivastava14a.html"
    name: Literal["dropout"] = "dropout"
    probability: Fraction = 0.5
    """Share of the values that are zeroed."""

    def build(self, given: Dimensions, outputs: int, parts: Layers) -> nn.Module:
        from torch import nn

        return nn.Dropout(self.probability)
