"""The networks of the fastest published trainings on CIFAR-10."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from dltrain.config import PositiveInt
from dltrain.data.types import ImageShape
from dltrain.layers.activations import GELU, Activation
from dltrain.layers.norms import BatchNorm, Norm
from dltrain.layers.whitening import Whitening
from dltrain.models.native import NativeModel

if TYPE_CHECKING:
    from torch import nn

    from dltrain.models.impl.parts import Layers


class Airbench(NativeModel):
    """Three groups of 3x3 convolutions behind a whitening first layer, a max pool after the first convolution of each:
    `airbench94` with two convolutions a group for 94 % on CIFAR-10, `airbench96` wider, with three and a residual
    connection.

    Norms have offsets but no gains, and follow their batch fast. Convolutions start as the identity in as many maps as
    they have inputs; the logits are divided by 9. Weight decay, label smoothing and schedule belong to it: see
    `experiments/cifar10_94.yaml` and `cifar10_96.yaml`.
    """

    source = "https://arxiv.org/abs/2404.00498"
    parameters = {("airbench94", "3x32x32", 10): 1_972_792, ("airbench96", "3x32x32", 10): 9_918_776}
    published_activation: ClassVar[Activation] = GELU()
    published_norm: ClassVar[Norm | None] = BatchNorm(momentum=0.4, epsilon=1e-12, gain=False)
    name: Literal["airbench94", "airbench96"]
    whitening: Whitening | None = Whitening()
    """The first layer: as published, patches of 2x2 pixels; null for none."""
    widths: Annotated[list[PositiveInt], Field(min_length=3, max_length=3)] | None = None
    """Maps of the three groups; null: 64, 256, 256, and of `airbench96` 128, 384, 512."""

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.airbench import airbench

        widths, depth = ((64, 256, 256), 2) if self.name == "airbench94" else ((128, 384, 512), 3)
        return airbench(self.widths or widths, depth, shape.channels, outputs, parts)
