"""Attention blocks, as modules. Imported only when a section builds.

All map (B, C, H, W) -> (B, C, H, W): the input times gates from 0 to 1. The ReLU and the sigmoid inside are
part of the gate, so they are no modules, which replacing a network's activations would find.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """Two 1x1 convolutions with a ReLU between them: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, reduction: int, bias: bool = True) -> None:
        super().__init__()
        width = max(channels // reduction, 1)
        self.fc1 = nn.Conv2d(channels, width, 1, bias=bias)
        self.fc2 = nn.Conv2d(width, channels, 1, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.fc2(torch.relu(self.fc1(images)))
        return out


class SqueezeExcitation(Bottleneck):
    """x s(W2 relu(W1 mean(x))): a gate for each channel."""

    def forward(self, images: Tensor) -> Tensor:
        return images * super().forward(images.mean((2, 3), keepdim=True)).sigmoid()


class ConcurrentExcitation(nn.Module):
    """A gate for each channel and one for each pixel, side by side; their results added, or the greater taken."""

    def __init__(self, channels: int, reduction: int, maximum: bool) -> None:
        super().__init__()
        self.maximum = maximum
        self.channel = SqueezeExcitation(channels, reduction)
        self.pixel = nn.Conv2d(channels, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        channel, pixel = self.channel(images), images * self.pixel(images).sigmoid()
        return torch.maximum(channel, pixel) if self.maximum else channel + pixel


class ConvolutionalBlockAttention(nn.Module):
    """A gate for each channel, from its mean and maximum; then a gate for each pixel, from those of its channels."""

    def __init__(self, channels: int, reduction: int, kernel: int, bias: bool) -> None:
        super().__init__()
        self.channel = Bottleneck(channels, reduction, bias)
        self.pixel = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, images: Tensor) -> Tensor:
        mean, greatest = images.mean((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
        images = images * (self.channel(mean) + self.channel(greatest)).sigmoid()
        across = torch.cat([images.mean(1, keepdim=True), images.amax(1, keepdim=True)], 1)
        gates: Tensor = self.norm(self.pixel(across)).sigmoid()
        return images * gates


class EfficientChannelAttention(nn.Module):
    """A gate for each channel, from a convolution over the means of `kernel` neighbouring channels."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        gates: Tensor = self.conv(images.mean((2, 3))[:, None]).sigmoid()
        return images * gates[:, 0, :, None, None]
