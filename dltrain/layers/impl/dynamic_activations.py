"""Activations that look at more than one pixel, as modules: (B, C, H, W) -> the same shape and type.

Imported only when a section builds. Affine maps of the means are layers, whose weights decay; what else is
learned is exempt by the file's name, or as a bias or a part of a norm.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from dltrain.layers.impl.norms import wide
from dltrain.layers.roles import Role
from dltrain.layers.trainable_activations import acon


def normalized(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    """The norm of x; by its running averages where the batch has one value a channel, and so no variance."""
    if norm.training and x.numel() == x.shape[1]:
        return functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    out: Tensor = norm(x)
    return out


class MetaAcon(nn.Module):
    """`acon` with p1 and p2 (C,) and a beta (B, C, 1, 1) made of the means of the maps."""

    role: ClassVar[Role] = "activation"

    def __init__(self, channels: int, p1: float | None, p2: float | None, reduction: int) -> None:
        super().__init__()
        hidden = max(channels // reduction, 16)
        self.p1, self.p2 = (
            nn.Parameter(torch.randn(channels) if start is None else torch.full((channels,), start))
            for start in (p1, p2)
        )
        self.first, self.norm1 = nn.Linear(channels, hidden), nn.BatchNorm1d(hidden)
        self.second, self.norm2 = nn.Linear(hidden, channels), nn.BatchNorm1d(channels)

    def forward(self, images: Tensor) -> Tensor:
        hidden = normalized(self.norm1, self.first(images.mean((2, 3))))
        beta = normalized(self.norm2, self.second(hidden)).sigmoid()
        p1, p2 = self.p1[:, None, None], self.p2[:, None, None]
        return acon(wide(images), p1, p2, wide(beta)[:, :, None, None]).to(images.dtype)


class OfMeans(nn.Module):
    """W2 relu(W1 m) of the means m of the maps: (B, C, H, W) -> (B, outputs), 0 at the start."""

    role: ClassVar[Role] = "activation"

    def __init__(self, channels: int, reduction: int, outputs: int) -> None:
        super().__init__()
        hidden = max(channels // reduction, 4)
        self.first, self.second = nn.Linear(channels, hidden), nn.Linear(hidden, outputs)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(images.mean((2, 3))).relu())
        return wide(out)


class DynamicReLU(nn.Module):
    """max_k (a_k x + b_k), k = 1, 2, with a and b of each image, and of each channel unless `shared`.

    With a `temperature` the output is multiplied by a weight of each pixel (B, 1, H, W) in [0, 1].
    """

    role: ClassVar[Role] = "activation"

    def __init__(self, channels: int, reduction: int, shared: bool, temperature: float | None = None) -> None:
        super().__init__()
        self.temperature = temperature
        self.shifts = OfMeans(channels, reduction, 4 if shared else 4 * channels)
        self.attention = None if temperature is None else nn.Conv2d(channels, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        shifts = 2 * self.shifts(images).sigmoid() - 1
        a1, a2, b1, b2 = shifts.view(shifts.shape[0], 4, -1, 1, 1).unbind(1)
        x = wide(images)
        out = torch.maximum((1 + a1) * x + b1 / 2, a2 * x + b2 / 2)
        if self.attention is not None and self.temperature is not None:
            scores = wide(self.attention(images)) / self.temperature
            weights = scores.flatten(1).softmax(1).view_as(scores) * (scores[0].numel() / 3)
            out = out * weights.clamp(max=1)
        return out.to(images.dtype)


class DynamicShiftMax(nn.Module):
    """max_k (a_k1 x_c + a_k2 x_{c + shift}), k = 1, 2, with a of each image and channel."""

    role: ClassVar[Role] = "activation"

    def __init__(self, channels: int, groups: int, reach: float, reduction: int) -> None:
        super().__init__()
        self.shift, self.reach = max(channels // groups, 1), reach
        self.shifts = OfMeans(channels, reduction, 4 * channels)

    def forward(self, images: Tensor) -> Tensor:
        shifts = 2 * self.reach * (functional.hardsigmoid(self.shifts(images)) - 0.5)
        a11, a12, a21, a22 = shifts.view(shifts.shape[0], 4, -1, 1, 1).unbind(1)
        x = wide(images)
        other = x.roll(-self.shift, 1)
        return torch.maximum((1 + a11) * x + a12 * other, a21 * x + a22 * other).to(images.dtype)


class FReLU(nn.Module):
    """max(x, T(x)), where T is a 3x3 convolution of each map with its own kernel, then batch normalisation."""

    role: ClassVar[Role] = "activation"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        assert self.convolution.bias is not None
        nn.init.zeros_(self.convolution.bias)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, images: Tensor) -> Tensor:
        return torch.maximum(images, normalized(self.norm, self.convolution(images)).to(images.dtype))
