"""LeNet-5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import nn

from dltrain.data.base import ImageShape
from dltrain.models.networks.fitting import too_small

if TYPE_CHECKING:
    from dltrain.layers.activations import Activation

_LEAST = 12
"""A 12x12 image, padded, gives 12 -> 6 -> 2 -> 1."""


def lenet5(
    name: str,
    shape: ImageShape,
    classes: int,
    activation: Activation,
    pooling: Literal["max", "average"],
    gain: Literal["xavier", "he"],
) -> nn.Module:
    """(B, C, H, W) -> (B, K). Sides under 32 pixels are padded by 2, as 28 is to reach the paper's 32.

    Raises ConfigError for images under 12x12.
    """
    if min(shape.height, shape.width) < _LEAST:
        raise too_small(name, shape, _LEAST)
    padding = (2 if shape.height < 32 else 0, 2 if shape.width < 32 else 0)
    height, width = (
        ((side + 2 * pad - 4) // 2 - 4) // 2 for side, pad in zip((shape.height, shape.width), padding, strict=True)
    )
    pool = nn.MaxPool2d if pooling == "max" else nn.AvgPool2d
    network = nn.Sequential(
        *(nn.Conv2d(shape.channels, 6, 5, padding=padding), activation.build(6), pool(2)),
        *(nn.Conv2d(6, 16, 5), activation.build(16), pool(2)),
        nn.Flatten(),
        *(nn.Linear(16 * height * width, 120), activation.build_for_vectors(120)),
        *(nn.Linear(120, 84), activation.build_for_vectors(84)),
        nn.Linear(84, classes),
    )
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if gain == "xavier":
                nn.init.xavier_uniform_(layer.weight)
            else:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return network
