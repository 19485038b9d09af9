"""Blocks of layers, for networks of one's own."""

from __future__ import annotations

from torch import Tensor, nn

from dltrain.models.impl.densenet import DenseLayer
from dltrain.models.impl.modular import ShuffleUnit
from dltrain.models.impl.parts import Layers


def vgg_block(channels: int, convolutions: int, out: int, parts: Layers) -> nn.Module:
    """(B, C, H, W) -> (B, out, H / 2, W / 2)."""
    layers: list[nn.Module] = []
    for _ in range(convolutions):
        layers += parts.convolution(channels, out, 3, padding=1)
        channels = out
    return nn.Sequential(*layers, nn.MaxPool2d(2))


def nin_block(channels: int, out: int, kernel: int, stride: int, padding: int, parts: Layers) -> nn.Module:
    """(B, C, H, W) -> (B, out, ...): a convolution and two of 1x1."""
    first = parts.convolution(channels, out, kernel, stride, padding)
    return nn.Sequential(*first, *parts.convolution(out, out, 1), *parts.convolution(out, out, 1))


def dense_block(channels: int, layers: int, growth: int, bottleneck: bool, bias: bool, parts: Layers) -> nn.Module:
    """(B, C, H, W) -> (B, C + layers * growth, H, W)."""
    return nn.Sequential(
        *(DenseLayer(channels + index * growth, growth, parts, bottleneck, bias) for index in range(layers))
    )


def separable_conv(channels: int, out: int, kernel: int, stride: int, parts: Layers) -> nn.Module:
    """(B, C, H, W) -> (B, out, H / stride, W / stride)."""
    each = parts.convolution(channels, channels, kernel, stride, kernel // 2, groups=channels)
    return nn.Sequential(*each, *parts.convolution(channels, out, 1))


def shuffle_block(channels: int, out: int, groups: int, stride: int, parts: Layers) -> nn.Module:
    """(B, C, H, W) -> (B, out, H / stride, W / stride). Raises ValueError when the groups do not divide the maps."""
    if stride == 1 and out != channels:
        raise ValueError(f"with `stride: 1` it keeps the number of maps: write `channels: {channels}`")
    if stride == 2 and out <= channels:
        raise ValueError(f"with `stride: 2` it adds maps: `channels` must be more than {channels}")
    first = groups if channels % groups == 0 else 1
    new = out - channels if stride == 2 else out
    if out % (4 * groups) or new % groups:
        raise ValueError(f"{groups} groups must divide a quarter of `channels` ({out}) and the new maps ({new})")
    return ShuffleUnit(channels, out, stride, groups, first, parts)


class ResidualBlock(nn.Module):
    """(B, C, H, W) -> (B, out, H / stride, W / stride): act(F(x) + shortcut(x))."""

    def __init__(self, channels: int, out: int, stride: int, bottleneck: bool, parts: Layers) -> None:
        super().__init__()
        bias, inner = not parts.shifts, out // 4 if bottleneck else out
        windows = [(1, 1), (3, stride), (1, 1)] if bottleneck else [(3, stride), (3, 1)]
        layers: list[nn.Module] = []
        before = channels
        for index, (kernel, step) in enumerate(windows):
            last = index == len(windows) - 1
            after = out if last else inner
            layers += [nn.Conv2d(before, after, kernel, step, kernel // 2, bias=bias), parts.norm(after)]
            if not last:
                layers.append(parts.activation(after))
            before = after
        self.residual = nn.Sequential(*layers)
        changes = stride > 1 or out != channels
        shortcut = [nn.Conv2d(channels, out, 1, stride, bias=bias), parts.norm(out)] if changes else []
        self.shortcut = nn.Sequential(*shortcut)
        self.activation = parts.activation(out)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.activation(self.residual(images) + self.shortcut(images))
        return out
