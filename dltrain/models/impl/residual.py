"""Residual networks for small images: with pre-activation, wide, and with grouped convolutions."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from dltrain.models.impl.parts import Layers, he_initialize


class Subsample(nn.Module):
    """Every `stride`-th pixel, and zeros for `new` channels: (B, C, H, W) -> (B, C + new, H / stride, W / stride)."""

    def __init__(self, stride: int, new: int) -> None:
        super().__init__()
        self.stride, self.new = stride, new

    def forward(self, images: Tensor) -> Tensor:
        return F.pad(images[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new))


class PreActivationBlock(nn.Module):
    """x + F(a) with a = act(norm(x)), where F alternates convolutions with norm and activation.

    images (B, C_in, H, W) -> (B, C_out, H / stride, W / stride). Where the shape changes the shortcut is
    either subsampling of x (option A) or a 1x1 convolution of a.
    """

    def __init__(
        self,
        channels: int,
        plan: list[tuple[int, int]],
        stride: int,
        projection: bool,
        parts: Layers,
        dropout: float = 0.0,
    ) -> None:
        """`plan` has (width, kernel) of each convolution; the first 3x3 one has the stride."""
        super().__init__()
        self.norm, self.activation = parts.norm(channels), parts.activation(channels)
        widths = [channels, *(width for width, _ in plan)]
        strided = next(index for index, (_, kernel) in enumerate(plan) if kernel == 3)
        layers: list[nn.Module] = []
        for index, (before, out) in enumerate(pairwise(widths)):
            if index:
                layers += [parts.norm(before), parts.activation(before), nn.Dropout(dropout)]
            kernel, step = plan[index][1], stride if index == strided else 1
            layers.append(nn.Conv2d(before, out, kernel, step, kernel // 2, bias=False))
        self.residual = nn.Sequential(*layers)
        changes = stride > 1 or widths[-1] != channels
        self.projection = nn.Conv2d(channels, widths[-1], 1, stride, bias=False) if changes and projection else None
        self.subsample = Subsample(stride, widths[-1] - channels) if changes and not projection else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        activated = self.activation(self.norm(images))
        shortcut = self.subsample(images) if self.projection is None else self.projection(activated)
        out: Tensor = self.residual(activated) + shortcut
        return out


def preact_resnet(
    block: Literal["basic", "bottleneck"],
    blocks: int,
    channels: int,
    classes: int,
    parts: Layers,
    width: int = 1,
    projection: bool = False,
    dropout: float = 0.0,
) -> nn.Module:
    """(B, C, H, W) -> (B, K): three stages of `blocks` blocks of 16, 32 and 64 times `width` channels (four times as
    many leave a bottleneck), a last norm and activation; He initialisation (fan out).
    """
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False)]
    before = 16
    for stage in range(3):
        inner = 16 * width * 2**stage
        plan = [(inner, 3), (inner, 3)] if block == "basic" else [(inner, 1), (inner, 3), (4 * inner, 1)]
        for index in range(blocks):
            stride = 2 if stage and index == 0 else 1
            layers.append(PreActivationBlock(before, plan, stride, projection, parts, dropout))
            before = plan[-1][0]
    layers += [parts.norm(before), parts.activation(before)]
    return he_initialize(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes)))


class GroupedBottleneck(nn.Module):
    """act(F(x) + shortcut(x)): 1x1, grouped 3x3 and 1x1 convolutions; the shortcut is a 1x1 convolution with norm
    where the shape changes.

    images (B, C_in, H, W) -> (B, C_out, H / stride, W / stride).
    """

    def __init__(self, channels: int, inner: int, out: int, stride: int, groups: int, parts: Layers) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *(nn.Conv2d(channels, inner, 1, bias=False), parts.norm(inner), parts.activation(inner)),
            *(nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False), parts.norm(inner)),
            *(parts.activation(inner), nn.Conv2d(inner, out, 1, bias=False), parts.norm(out)),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), parts.norm(out))
        self.activation = parts.activation(out)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.activation(self.residual(images) + self.shortcut(images))
        return out


def resnext_cifar(depth: int, groups: int, width: int, channels: int, classes: int, parts: Layers) -> nn.Module:
    """(B, C, H, W) -> (B, K): (depth - 2) / 9 blocks in each of three stages of 256, 512 and 1024 maps; groups of
    `width`, twice and four times as many channels. He initialisation (fan out).
    """
    layers: list[nn.Module] = [nn.Conv2d(channels, 64, 3, padding=1, bias=False), parts.norm(64), parts.activation(64)]
    before = 64
    for stage in range(3):
        inner, out = groups * width * 2**stage, 256 * 2**stage
        for index in range((depth - 2) // 9):
            layers.append(GroupedBottleneck(before, inner, out, 2 if stage and index == 0 else 1, groups, parts))
            before = out
    return he_initialize(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes)))
