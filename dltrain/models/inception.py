"""Inception-ResNet v1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dltrain.config import Fraction
from dltrain.data.types import ImageShape
from dltrain.models.native import PhotoModel

if TYPE_CHECKING:
    from torch import nn

    from dltrain.models.impl.parts import Layers


class InceptionResNetV1(PhotoModel):
    """Inception modules whose joined branches are scaled and added to their input; made for 299 pixels, at least 75.

    The paper states no number of parameters; with a sixth module in the last stage, as FaceNet has it, the network
    below the head has FaceNet's 22,564,096.
    """

    source = "https://arxiv.org/abs/1602.07261"
    parameters = {
        ("inception_resnet_v1", "3x224x224", 1000): 22_756_328,
        ("inception_resnet_v1", "3x32x32", 10): 20_981_258,
    }
    name: Literal["inception_resnet_v1"] = "inception_resnet_v1"
    dropout: Fraction = 0.2
    """Share of the last layer's inputs zeroed in training."""

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.inception import inception_resnet_v1

        return inception_resnet_v1(shape.channels, outputs, parts, self.dropout)
