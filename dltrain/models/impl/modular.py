"""GoogLeNet, ShuffleNet v1 and MobileNet v1."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltrain.models.impl.parts import Layers, he_initialize, head

_INCEPTIONS = (
    (64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), None,
    (192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128), None,
    (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128),
)  # fmt: skip
"""Channels of 1x1; 3x3 reduced, 3x3; 5x5 reduced, 5x5; pool. None is a pool with stride 2."""

_HEADS = (3, 6)
"""The inceptions 4a and 4d, which auxiliary heads follow."""
_SEPARABLE = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""Maps and stride of the thirteen pairs of MobileNet."""


class Inception(nn.Module):
    """Four branches side by side, of 1x1, 1x1-3x3, 1x1-5x5 and pool-1x1: (B, C, H, W) -> (B, sum of branches, H, W)."""

    def __init__(self, channels: int, widths: tuple[int, int, int, int, int, int], parts: Layers) -> None:
        super().__init__()
        one, three_reduced, three, five_reduced, five, pool = widths
        self.branch1 = nn.Sequential(*parts.convolution(channels, one, 1))
        self.branch3 = nn.Sequential(
            *parts.convolution(channels, three_reduced, 1), *parts.convolution(three_reduced, three, 3, padding=1)
        )
        self.branch5 = nn.Sequential(
            *parts.convolution(channels, five_reduced, 1), *parts.convolution(five_reduced, five, 5, padding=2)
        )
        self.branch_pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), *parts.convolution(channels, pool, 1))

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat(
            [self.branch1(images), self.branch3(images), self.branch5(images), self.branch_pool(images)], 1
        )


class AuxiliaryHead(nn.Module):
    """(B, C, H, W) -> (B, K): average pool to 4x4, 1x1 convolution to 128 maps, a layer of 1024 units, dropout of 0.7.

    The pool has windows of 5x5 and stride 3 on maps of 14x14, as published, and is adaptive on others.
    """

    def __init__(self, channels: int, classes: int, parts: Layers) -> None:
        super().__init__()
        self.convolution = nn.Sequential(*parts.convolution(channels, 128, 1))
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(128 * 4 * 4, 1024), parts.vector_activation(1024), nn.Dropout(0.7),
            nn.Linear(1024, classes),
        )  # fmt: skip

    def forward(self, maps: Tensor) -> Tensor:
        published = maps.shape[2:] == (14, 14)
        pooled = F.avg_pool2d(maps, 5, 3) if published else F.adaptive_avg_pool2d(maps, 4)
        out: Tensor = self.layers(self.convolution(pooled))
        return out


class WithHeads(nn.Module):
    """(B, C, H, W) -> (B, K), and in training the logits of the network and of each head, as a tuple.

    `stages` follow each other; `heads` are on what each of them but the last puts out.
    """

    def __init__(self, stages: Sequence[nn.Module], heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages, self.heads = nn.ModuleList(stages), nn.ModuleList(heads)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        auxiliary = []
        for stage, auxiliary_head in zip(self.stages, self.heads, strict=False):
            images = stage(images)
            if self.training:
                auxiliary.append(auxiliary_head(images))
        logits: Tensor = self.stages[-1](images)
        return (logits, *auxiliary) if self.training else logits


def googlenet(channels: int, classes: int, parts: Layers, dropout: float, auxiliary: bool = False) -> nn.Module:
    """(B, C, H, W) -> (B, K): 224 pixels become 112, 56, 28, 14 and 7. Without a norm in `parts` there are two local
    response norms, as published. He initialisation (fan in). `auxiliary` adds heads after the third and the sixth
    inception.
    """

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    def response_norm() -> list[nn.Module]:
        return [] if parts.make_norm else [nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)]

    layers = [
        *(*parts.convolution(channels, 64, 7, 2, 3), pool(), *response_norm()),
        *parts.convolution(64, 64, 1),
        *(*parts.convolution(64, 192, 3, padding=1), *response_norm(), pool()),
    ]
    width = 192
    ends, heads = [0], []
    for index, widths in enumerate(_INCEPTIONS):
        layers.append(Inception(width, widths, parts) if widths else pool())
        width = widths[0] + widths[2] + widths[4] + widths[5] if widths else width
        if auxiliary and index in _HEADS:
            ends.append(len(layers))
            heads.append(AuxiliaryHead(width, classes, parts))
    layers += head(width, classes, dropout)
    if not auxiliary:
        return he_initialize(nn.Sequential(*layers), "fan_in")
    stages = [nn.Sequential(*layers[start:end]) for start, end in pairwise([*ends, len(layers)])]
    return he_initialize(WithHeads(stages, heads), "fan_in")


class ShuffleUnit(nn.Module):
    """1x1 grouped convolution to a quarter of the maps, channel shuffle, 3x3 of each map, 1x1 grouped convolution.

    images (B, C_in, H, W) -> (B, C_out, H / stride, W / stride). Stride 1 adds its input, stride 2
    concatenates the 3x3 average pool of its input. `first` groups the first 1x1 convolution.
    """

    def __init__(self, channels: int, out: int, stride: int, groups: int, first: int, parts: Layers) -> None:
        super().__init__()
        self.stride = stride
        inner, new = out // 4, out - channels if stride == 2 else out
        layers = [nn.Conv2d(channels, inner, 1, groups=first, bias=False), parts.norm(inner), parts.activation(inner)]
        if groups > 1:
            layers.append(nn.ChannelShuffle(groups))
        layers += [nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), parts.norm(inner)]
        layers += [nn.Conv2d(inner, new, 1, groups=groups, bias=False), parts.norm(new)]
        self.residual = nn.Sequential(*layers)
        self.shortcut = nn.AvgPool2d(3, 2, 1) if stride == 2 else nn.Identity()
        self.activation = parts.activation(out)

    def forward(self, images: Tensor) -> Tensor:
        residual, shortcut = self.residual(images), self.shortcut(images)
        joined = torch.cat([shortcut, residual], 1) if self.stride == 2 else residual + shortcut
        out: Tensor = self.activation(joined)
        return out


def shufflenet_v1(width: int, groups: int, channels: int, classes: int, parts: Layers) -> nn.Module:
    """(B, C, H, W) -> (B, K): stages of 4, 8 and 4 units of `width`, twice and four times as many maps; the very first
    1x1 convolution has no groups. He initialisation (fan out).
    """
    layers = [nn.Conv2d(channels, 24, 3, 2, 1, bias=False), parts.norm(24), parts.activation(24)]
    layers.append(nn.MaxPool2d(3, 2, 1))
    before = 24
    for stage, units in enumerate((4, 8, 4)):
        for unit in range(units):
            first, stride = 1 if before == 24 else groups, 1 if unit else 2
            layers.append(ShuffleUnit(before, width * 2**stage, stride, groups, first, parts))
            before = width * 2**stage
    return he_initialize(nn.Sequential(*layers, *head(before, classes)))


def mobilenet_v1(width: float, channels: int, classes: int, parts: Layers) -> nn.Module:
    """(B, C, H, W) -> (B, K): a convolution with stride 2, then thirteen pairs of a 3x3 convolution of each map and a
    1x1 convolution, to `width` times 64 to 1024 maps. He initialisation (fan out).
    """
    before = round(32 * width)
    layers = [*parts.convolution(channels, before, 3, 2, 1)]
    for out, stride in _SEPARABLE:
        after = round(out * width)
        pair = [*parts.convolution(before, before, 3, stride, 1, groups=before), *parts.convolution(before, after, 1)]
        layers.append(nn.Sequential(*pair))
        before = after
    return he_initialize(nn.Sequential(*layers, *head(before, classes)))
