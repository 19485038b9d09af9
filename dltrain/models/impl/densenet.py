"""Densely connected networks for small images, and the small one of the study notes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dltrain.models.impl.parts import Layers, he_initialize, head


class DenseLayer(nn.Module):
    """Appends `growth` new maps to its input: (B, C, H, W) -> (B, C + growth, H, W).

    norm, activation, 3x3 convolution; with a bottleneck a 1x1 convolution to 4 growth maps comes before.
    """

    def __init__(
        self,
        channels: int,
        growth: int,
        parts: Layers,
        bottleneck: bool,
        bias: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers = [parts.norm(channels), parts.activation(channels)]
        if bottleneck:
            layers += [nn.Conv2d(channels, 4 * growth, 1, bias=bias), nn.Dropout(dropout)]
            channels = 4 * growth
            layers += [parts.norm(channels), parts.activation(channels)]
        layers += [nn.Conv2d(channels, growth, 3, padding=1, bias=bias), nn.Dropout(dropout)]
        self.new = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images, self.new(images)], 1)


def transition(channels: int, out: int, parts: Layers, bias: bool = False, dropout: float = 0.0) -> list[nn.Module]:
    """(B, C, H, W) -> (B, out, H / 2, W / 2)."""
    convolution = nn.Conv2d(channels, out, 1, bias=bias)
    return [parts.norm(channels), parts.activation(channels), convolution, nn.Dropout(dropout), nn.AvgPool2d(2)]


def densenet_cifar(
    depth: int, growth: int, compressed: bool, channels: int, classes: int, parts: Layers, dropout: float
) -> nn.Module:
    """(B, C, H, W) -> (B, K): three dense blocks; `compressed` (BC) has bottlenecks, and transitions that halve the
    number of maps. He initialisation (fan in).
    """
    per_block = (depth - 4) // 6 if compressed else (depth - 4) // 3
    width = 2 * growth if compressed else 16
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
    for block in range(3):
        for _ in range(per_block):
            layers.append(DenseLayer(width, growth, parts, bottleneck=compressed, dropout=dropout))
            width += growth
        if block < 2:
            out = width // 2 if compressed else width
            layers += transition(width, out, parts, dropout=dropout)
            width = out
    layers += [parts.norm(width), parts.activation(width), *head(width, classes)]
    return he_initialize(nn.Sequential(*layers), "fan_in")


def densenet_small(channels: int, classes: int, parts: Layers) -> nn.Module:
    """(B, C, H, W) -> (B, K): a stem as in ResNet, then four blocks of four layers with growth 32, and convolutions
    with biases. He initialisation (fan in).
    """
    layers = [nn.Conv2d(channels, 64, 7, 2, 3), parts.norm(64), parts.activation(64), nn.MaxPool2d(3, 2, 1)]
    width = 64
    for block in range(4):
        for _ in range(4):
            layers.append(DenseLayer(width, 32, parts, bottleneck=False, bias=True))
            width += 32
        if block < 3:
            layers += transition(width, width // 2, parts, bias=True)
            width //= 2
    layers += [parts.norm(width), parts.activation(width), *head(width, classes)]
    return he_initialize(nn.Sequential(*layers), "fan_in")
