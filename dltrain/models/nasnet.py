"""NASNet-A for phones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dltrain.data.types import ImageShape
from dltrain.models.native import PhotoModel

if TYPE_CHECKING:
    from torch import nn

    from dltrain.models.impl.parts import Layers


class NASNetMobile(PhotoModel):
    """NASNet-A (4 @ 1056): the cells of `nasnet_large`, four a stage, 1056 maps at the end; paddings are the same on
    both sides, and paths are not dropped in training.
    """

    source = "https://arxiv.org/abs/1707.07012"
    parameters = {
        ("nasnet_mobile", "3x224x224", 1000): 5_289_978,
        ("nasnet_mobile", "3x32x32", 10): 4_243_548,
    }
    name: Literal["nasnet_mobile"] = "nasnet_mobile"

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.nasnet import NASNet

        return NASNet(4, 1056, 32, shape.channels, outputs, parts)
