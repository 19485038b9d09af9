"""NASNet-A: cells of separable convolutions and pools, found by a search."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltrain.models.impl.parts import Layers, he_initialize, head


def _fit(channels: int, out: int, parts: Layers) -> nn.Sequential:
    """Activation, 1x1 convolution, norm."""
    return nn.Sequential(parts.activation(channels), nn.Conv2d(channels, out, 1, bias=False), parts.norm(out))


def _separable(channels: int, out: int, kernel: int, stride: int, parts: Layers) -> nn.Sequential:
    """Twice activation, a convolution of each map, 1x1 convolution, norm; the first has the stride."""
    layers: list[nn.Module] = []
    for before, step in ((channels, stride), (out, 1)):
        layers += [parts.activation(before), nn.Conv2d(before, before, kernel, step, kernel // 2, 1, before, False)]
        layers += [nn.Conv2d(before, out, 1, bias=False), parts.norm(out)]
    return nn.Sequential(*layers)


def _average(stride: int) -> nn.Module:
    return nn.AvgPool2d(3, stride, 1, count_include_pad=False)


class Halving(nn.Module):
    """Every second pixel, and its neighbour to the lower right, each by a 1x1 convolution to half of the maps:
    (B, C, H, W) -> (B, out, H / 2, W / 2).
    """

    def __init__(self, channels: int, out: int, parts: Layers) -> None:
        super().__init__()
        self.activation = parts.activation(channels)
        self.first = nn.Conv2d(channels, out // 2, 1, bias=False)
        self.second = nn.Conv2d(channels, out // 2, 1, bias=False)
        self.norm = parts.norm(out)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.activation(maps)
        shifted = F.pad(maps, (0, 1, 0, 1))[:, :, 1::2, 1::2]
        out: Tensor = self.norm(torch.cat([self.first(maps[:, :, ::2, ::2]), self.second(shifted)], 1))
        return out


class NormalCell(nn.Module):
    """maps (B, C, H, W) and those of the cell before -> (B, 6 width, H, W)."""

    def __init__(self, before: nn.Module, channels: int, width: int, parts: Layers) -> None:
        super().__init__()
        self.before, self.fit = before, _fit(channels, width, parts)
        self.convolutions = nn.ModuleList(_separable(width, width, kernel, 1, parts) for kernel in (5, 3, 5, 3, 3))
        self.pool = _average(1)

    def forward(self, maps: Tensor, previous: Tensor) -> Tensor:
        a, b, c, d, e = self.convolutions
        left, right = self.before(previous), self.fit(maps)
        pooled = self.pool(left)
        sums = [a(right) + b(left), c(left) + d(left), self.pool(right) + left, pooled + pooled, e(right) + right]
        return torch.cat([left, *sums], 1)


class ReductionCell(nn.Module):
    """maps (B, C, H, W) and those of the cell before, of `left` maps once fitted -> (B, 4 width, H / 2, W / 2)."""

    def __init__(self, before: nn.Module, left: int, channels: int, width: int, parts: Layers) -> None:
        super().__init__()
        self.before, self.fit = before, _fit(channels, width, parts)
        plan = ((width, 5, 2), (left, 7, 2), (left, 7, 2), (left, 5, 2), (width, 3, 1))
        self.convolutions = nn.ModuleList(_separable(n, width, kernel, stride, parts) for n, kernel, stride in plan)
        self.largest, self.mean, self.smooth = nn.MaxPool2d(3, 2, 1), _average(2), _average(1)

    def forward(self, maps: Tensor, previous: Tensor) -> Tensor:
        a, b, c, d, e = self.convolutions
        left, right = self.before(previous), self.fit(maps)
        first, largest = a(right) + b(left), self.largest(right)
        second = largest + c(left)
        return torch.cat([second, self.mean(right) + d(left), self.smooth(first) + second, e(first) + largest], 1)


class NASNet(nn.Module):
    """(B, C, H, W) -> (B, K): a 3x3 convolution with stride 2, two reduction cells, then three stages of `repeats`
    normal cells with a reduction cell before the second and the third; `features` maps at the end. Paddings are the
    same on both sides. He initialisation (fan out).
    """

    def __init__(self, repeats: int, features: int, stem: int, channels: int, classes: int, parts: Layers) -> None:
        super().__init__()
        width = features // 24
        self.stem = nn.Sequential(nn.Conv2d(channels, stem, 3, 2, 1, bias=False), parts.norm(stem))
        first = ReductionCell(nn.Identity(), stem, stem, width // 4, parts)
        second = ReductionCell(Halving(stem, width // 2, parts), width // 2, width, width // 2, parts)
        cells: list[nn.Module] = [first, second]
        before, now, halved = width, 2 * width, True
        for stage in range(3):
            own = width * 2**stage
            if stage:
                cells.append(ReductionCell(_fit(before, own, parts), own, now, own, parts))
                before, now, halved = now, 4 * own, True
            for _ in range(repeats):
                fitted = Halving(before, own, parts) if halved else _fit(before, own, parts)
                cells.append(NormalCell(fitted, now, own, parts))
                before, now, halved = now, 6 * own, False
        self.cells = nn.ModuleList(cells)
        self.head = nn.Sequential(parts.activation(now), *head(now, classes, 0.5))
        he_initialize(self)

    def forward(self, images: Tensor) -> Tensor:
        previous = maps = self.stem(images)
        for cell in self.cells:
            previous, maps = maps, cell(maps, previous)
        logits: Tensor = self.head(maps)
        return logits
