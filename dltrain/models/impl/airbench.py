"""The networks of Jordan (2024) for CIFAR-10, without their whitening layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dltrain.models.impl.parts import Layers


class Group(nn.Module):
    """Convolution, 2x2 max pool, norm and activation; then `depth` - 1 times convolution, norm and activation, with a
    residual connection around them for more than one. images (B, C, H, W) -> (B, out, H // 2, W // 2).
    """

    def __init__(self, channels: int, out: int, depth: int, parts: Layers) -> None:
        super().__init__()
        first = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        self.first = nn.Sequential(first, nn.MaxPool2d(2), parts.norm(out), parts.activation(out))
        layers: list[nn.Module] = []
        for index in range(depth - 1):
            layers += [parts.activation(out)] if index else []
            layers += [nn.Conv2d(out, out, 3, padding=1, bias=False), parts.norm(out)]
        self.residual = depth > 2
        self.rest = nn.Sequential(*layers)
        self.activation = parts.activation(out)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images)
        rest = self.rest(maps)
        out: Tensor = self.activation(rest + maps if self.residual else rest)
        return out


class Scaled(nn.Linear):
    """An affine map without offset whose outputs are multiplied by 1 / 9: (B, C) -> (B, K)."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) / 9


@torch.no_grad()
def airbench(widths: Sequence[int], depth: int, channels: int, classes: int, parts: Layers) -> nn.Module:
    """(B, C, H, W) -> (B, K)."""
    groups = []
    for width in widths:
        groups.append(Group(channels, width, depth, parts))
        channels = width
    network = nn.Sequential(*groups, nn.AdaptiveMaxPool2d(1), nn.Flatten(), Scaled(channels, classes, bias=False))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight[: module.in_channels])
    return network
