"""Networks of one's own, written layer by layer in the experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from dltrain.data.types import ImageShape
from dltrain.layers.norms import Norm
from dltrain.models import building_blocks as building_blocks  # completes the kind
from dltrain.models.building_layers import BuildingLayer
from dltrain.models.native import NativeModel

if TYPE_CHECKING:
    from torch import nn

    from dltrain.models.impl.parts import Layers


class Sequential(NativeModel):
    """The layers that you list, one after the other; each is made for what the one before puts out.

    `norm` and `activation` are those of the blocks, and of `norm` and `activation` layers that name no other. Weights
    of convolutions and affine layers start by He et al. (2015, fan in), biases at 0; `initialization` sets another
    start. The last layer's number of units or channels is left out: it is as many as the task wants.
    """

    published_norm: ClassVar[Norm | None] = None
    name: Literal["sequential"] = "sequential"
    layers: Annotated[list[BuildingLayer], Field(min_length=1)]
    """The layers: `dltrain list layers` shows them."""

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.building_layers import sequential
        from dltrain.models.impl.parts import he_initialize

        given = (shape.channels, shape.height, shape.width)
        return he_initialize(sequential(self.layers, given, outputs, parts), "fan_in")
