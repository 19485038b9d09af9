"""Inception-ResNet v1 (Szegedy et al. 2016, figures 10 to 14 and table 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dltrain.models.impl.parts import Layers, he_initialize, head

Layer = tuple[int, int | tuple[int, int]]
"""Maps and kernel of a convolution that keeps the size of its maps."""


def _chain(channels: int, layers: list[Layer], parts: Layers) -> nn.Sequential:
    """Convolutions one after the other, each with norm and activation, that keep the size of their maps."""
    found: list[nn.Module] = []
    for out, kernel in layers:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2)
        found.append(nn.Conv2d(channels, out, (height, width), padding=padding, bias=not parts.shifts))
        found += [parts.norm(out), parts.activation(out)]
        channels = out
    return nn.Sequential(*found)


class ResidualInception(nn.Module):
    """act(x + scale linear(branches(x))): branches side by side, then a 1x1 convolution back to as many maps.

    images (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, channels: int, branches: list[list[Layer]], scale: float, parts: Layers) -> None:
        super().__init__()
        self.scale = scale
        self.branches = nn.ModuleList(_chain(channels, layers, parts) for layers in branches)
        self.linear = nn.Conv2d(sum(layers[-1][0] for layers in branches), channels, 1)
        self.activation = parts.activation(channels)

    def forward(self, images: Tensor) -> Tensor:
        residual = self.linear(torch.cat([branch(images) for branch in self.branches], 1))
        out: Tensor = self.activation(residual * self.scale + images)
        return out


class Reduction(nn.Module):
    """A max pool beside chains of convolutions, all of which end in stride 2 without padding; joined.

    images (B, C, H, W) -> (B, C + last maps of each chain, (H - 1) // 2, (W - 1) // 2).
    """

    def __init__(self, channels: int, chains: list[list[Layer]], parts: Layers) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, 2)
        self.branches = nn.ModuleList()
        for *first, (out, kernel) in chains:
            assert isinstance(kernel, int)
            before = first[-1][0] if first else channels
            last = parts.convolution(before, out, kernel, stride=2)
            self.branches.append(nn.Sequential(*_chain(channels, first, parts), *last))

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.pool(images), *(branch(images) for branch in self.branches)], 1)


def inception_resnet_v1(channels: int, classes: int, parts: Layers, dropout: float) -> nn.Module:
    """(B, C, H, W) -> (B, K). 299 pixels become 35, 17 and 8; He initialisation."""
    network = nn.Sequential(
        *(*parts.convolution(channels, 32, 3, stride=2), *parts.convolution(32, 32, 3)),
        *(*parts.convolution(32, 64, 3, padding=1), nn.MaxPool2d(3, 2)),
        *(*parts.convolution(64, 80, 1), *parts.convolution(80, 192, 3), *parts.convolution(192, 256, 3, stride=2)),
        *(
            ResidualInception(256, [[(32, 1)], [(32, 1), (32, 3)], [(32, 1), (32, 3), (32, 3)]], 0.17, parts)
            for _ in range(5)
        ),
        Reduction(256, [[(384, 3)], [(192, 1), (192, 3), (256, 3)]], parts),
        *(
            ResidualInception(896, [[(128, 1)], [(128, 1), (128, (1, 7)), (128, (7, 1))]], 0.1, parts)
            for _ in range(10)
        ),
        Reduction(896, [[(256, 1), (384, 3)], [(256, 1), (256, 3)], [(256, 1), (256, 3), (256, 3)]], parts),
        *(
            ResidualInception(1792, [[(192, 1)], [(192, 1), (192, (1, 3)), (192, (3, 1))]], 0.2, parts)
            for _ in range(5)
        ),
        *head(1792, classes, dropout),
    )
    return he_initialize(network)
