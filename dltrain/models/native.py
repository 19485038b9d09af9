"""What the networks have in common that are written here: layers to exchange, and a check of the image size."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from dltrain.data.types import ImageShape
from dltrain.layers.activations import Activation, ReLU
from dltrain.layers.norms import BatchNorm, Norm
from dltrain.models.adaptable import SMALL, Adaptable

if TYPE_CHECKING:
    from torch import nn

    from dltrain.models.impl.changes import Adapter
    from dltrain.models.impl.parts import Layers


class NativeModel(Adaptable):
    """A network whose activation and norm can be set, with those of the paper where they are null."""

    published_activation: ClassVar[Activation] = ReLU()
    published_norm: ClassVar[Norm | None] = BatchNorm()
    activation: Activation | None = None
    """The function between the layers, or null as published (ReLU, in most)."""
    norm: Norm | None = None
    """The normalisation, or null as published."""

    def build(self, shape: ImageShape, outputs: int) -> nn.Module:
        from dltrain.models.impl.fitting import fit
        from dltrain.models.impl.parts import Layers, pool_first

        activation, norm = self.activation or self.published_activation, self.norm or self.published_norm
        shifts = norm is not None and norm.shifts
        make_norm, least = (norm.build, norm.least_pixels) if norm is not None else (None, 1)
        parts = Layers(activation.build, activation.build_for_vectors, make_norm, shifts, least)
        network = fit(
            self.name, shape, lambda shape: self.with_stem(self.network(shape, outputs, parts), shape), fixed=False
        )
        return pool_first(self.adapted(network, shape))

    def with_stem(self, network: nn.Module, shape: ImageShape) -> nn.Module:
        """`network`, new, with the stem that images of `shape` get; as it is, where there is no choice of stems."""
        return network

    def exchange(self, adapter: Adapter) -> None:
        adapter.built_with(self.activation, self.norm)

    @abstractmethod
    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        """The network, made of `parts`. Raises ValueError when nothing of the image is left to classify."""


class PhotoModel(NativeModel):
    """A network made for photos, with a stem to choose."""

    stem: Literal["auto", "small", "large"] = "auto"
    """`large`: as published; `small`: the first convolution becomes 3x3 with stride 1, and the pool after it is left
    out; `auto`: small for images up to 64 pixels a side."""

    def with_stem(self, network: nn.Module, shape: ImageShape) -> nn.Module:
        from dltrain.models.impl.stem import small_stem

        if self.stem == "small" or (self.stem == "auto" and max(shape.height, shape.width) <= SMALL):
            small_stem(network, shape)
        return network
