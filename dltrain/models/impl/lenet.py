"""LeNet-5."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from dltrain.data.types import ImageShape
from dltrain.models.impl.parts import Layers, size_after


def lenet5(
    shape: ImageShape,
    classes: int,
    parts: Layers,
    pooling: Literal["max", "average"],
    gain: Literal["xavier", "he"],
) -> nn.Module:
    """(B, C, H, W) -> (B, K). Sides under 32 pixels are padded by 2, as 28 is to reach the paper's 32.

    Raises ValueError for images under 12x12.
    """
    padding = (2 if shape.height < 32 else 0, 2 if shape.width < 32 else 0)
    height, width = (
        size_after(side, (5, 1, pad), (2, 2, 0), (5, 1, 0), (2, 2, 0))
        for side, pad in zip((shape.height, shape.width), padding, strict=True)
    )
    pool = MaxPool2d if pooling == "max" else nn.AvgPool2d
    network = nn.Sequential(
        *_convolution(shape.channels, 6, padding, parts), pool(2),
        *_convolution(6, 16, (0, 0), parts), pool(2),
        nn.Flatten(),
        *(nn.Linear(16 * height * width, 120), parts.vector_activation(120)),
        *(nn.Linear(120, 84), parts.vector_activation(84)),
        nn.Linear(84, classes),
    )  # fmt: skip
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if gain == "xavier":
                nn.init.xavier_uniform_(layer.weight)
            else:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


class MaxPool2d(nn.MaxPool2d):
    """nn.MaxPool2d, which on a CPU takes 1.6 times the time for 6 maps in bfloat16, and therefore gets them in float32:
    the same numbers, as the largest of some is one of them."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        slow = input.device.type == "cpu" and input.dtype == torch.bfloat16
        maxima: torch.Tensor = super().forward(input.float() if slow else input)
        return maxima.to(input.dtype)


def _convolution(channels: int, out: int, padding: tuple[int, int], parts: Layers) -> list[nn.Module]:
    layer = nn.Conv2d(channels, out, 5, padding=padding, bias=not parts.shifts)
    norms = [parts.norm(out)] if parts.make_norm is not None else []
    return [layer, *norms, parts.activation(out)]
