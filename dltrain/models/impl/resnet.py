"""The residual networks of He et al. (2015), section 4.2, for small images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dltrain.models.impl.parts import Layers


class BasicBlock(nn.Module):
    """act(F(x) + shortcut(x)), where F is two 3x3 convolutions with norms.

    images (B, C_in, H, W) -> (B, C_out, H / stride, W / stride). The shortcut has no parameters (option
    A): every `stride`-th pixel, and zeros for the channels that are new.
    """

    def __init__(self, channels: int, out: int, stride: int, parts: Layers) -> None:
        super().__init__()
        self.stride, self.new_channels = stride, out - channels
        self.convolution1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.norm1 = parts.norm(out)
        self.activation1 = parts.activation(out)
        self.convolution2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = parts.norm(out)
        self.activation2 = parts.activation(out)

    def shortcut(self, images: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H / stride, W / stride)."""
        if self.stride > 1:
            images = images[:, :, :: self.stride, :: self.stride]
        return F.pad(images, (0, 0, 0, 0, 0, self.new_channels)) if self.new_channels else images

    def forward(self, images: Tensor) -> Tensor:
        residual = self.activation1(self.norm1(self.convolution1(images)))
        residual = self.norm2(self.convolution2(residual))
        out: Tensor = self.activation2(residual + self.shortcut(images))
        return out


def cifar_resnet(depth: int, channels: int, classes: int, parts: Layers) -> nn.Module:
    """(B, C, H, W) -> (B, K): 6 n + 2 layers in stages of 16, 32 and 64 channels; He initialisation (fan out)."""
    blocks = (depth - 2) // 6
    stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
    layers: list[nn.Module] = [stem, parts.norm(16), parts.activation(16)]
    width = 16
    for out in (16, 32, 64):
        for block in range(blocks):
            stride = 2 if out > 16 and block == 0 else 1
            layers.append(BasicBlock(width, out, stride, parts))
            width = out
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
