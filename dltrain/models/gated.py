"""ResNet-50 with the gates of three papers: the network of a library, and our attention in its blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dltrain.data.types import ImageShape
from dltrain.layers.attention import (
    Attention,
    ConcurrentExcitation,
    ConvolutionalBlockAttention,
    EfficientChannelAttention,
)
from dltrain.models.published import PublishedModel

if TYPE_CHECKING:
    from torch import nn


class GatedResNet(PublishedModel):
    """ResNet-50 with a gate at the end of each residual branch, before the addition."""

    published_attention: ClassVar[Attention]
    attention: Attention | None = None
    """The gate of each block, or null for the published one; pretrained, gates start random."""

    def adapted(self, network: nn.Module, shape: ImageShape) -> nn.Module:
        gated = self.model_copy(update={"attention": self.attention or self.published_attention})
        return super(GatedResNet, gated).adapted(network, shape)


class CBAMResNet(GatedResNet):
    """ResNet-50 with a gate on the channels, then one on the pixels, in each block; their MLPs have no biases."""

    source = "https://arxiv.org/abs/1807.06521"
    libraries = {"cbam_resnet50": "torchvision/resnet50"}
    parameters = {("cbam_resnet50", "3x224x224", 1000): 28_073_576}
    published_attention = ConvolutionalBlockAttention()
    name: str


class ECAResNet(GatedResNet):
    """ResNet-50 with channels gated by a convolution over neighbouring channels in each block."""

    source = "https://arxiv.org/abs/1910.03151"
    libraries = {"eca_resnet50": "torchvision/resnet50"}
    parameters = {("eca_resnet50", "3x224x224", 1000): 25_557_118}
    published_attention = EfficientChannelAttention()
    name: str


class ConcurrentExcitationResNet(GatedResNet):
    """ResNet-50 with gates on the channels and on the pixels, side by side, in each block."""

    source = "https://arxiv.org/abs/1803.02579"
    libraries = {"scse_resnet50": "torchvision/resnet50"}
    parameters = {("scse_resnet50", "3x224x224", 1000): 45_714_360}
    published_attention = ConcurrentExcitation()
    name: str
