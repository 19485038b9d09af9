"""Regularising layers that zero parts at random in training, as modules. Imported only when a network is built."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltrain.layers.impl.modules import CountsSteps


class DropBlock(CountsSteps):
    """Zeroes `size` x `size` squares of (B, C, H, W) in training; the mean of what is left is scaled up.

    With a ramp, the rate of a step is that share of it which the step's number, from 1, is of `ramp`.
    """

    steps: Tensor
    anew = True

    def __init__(self, rate: float, size: int, ramp: int) -> None:
        super().__init__()
        self.rate, self.size, self.ramp = rate, size, ramp
        if ramp:
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return images
        height, width = images.shape[2:]
        size = min(self.size, height, width)
        size -= 1 - size % 2
        seeded = (height - size + 1, width - size + 1)
        gamma: Tensor | float = self.rate / size**2 * height * width / (seeded[0] * seeded[1])
        if self.ramp:
            gamma = gamma * ((self.steps + 1) / self.ramp).clamp(max=1)
        seeds = (torch.rand(*images.shape[:2], *seeded, device=images.device) < gamma).float()
        middle = size // 2
        kept = 1 - F.max_pool2d(F.pad(seeds, (middle,) * 4), size, 1, middle)
        return images * (kept * (kept.numel() / kept.sum().clamp(min=1))).to(images.dtype)

    def extra_repr(self) -> str:
        return f"rate={self.rate}, size={self.size}, ramp={self.ramp}"


class DropConnectLinear(nn.Linear):
    """A linear layer that zeroes each weight with probability `rate` in training and scales the others by
    1 / (1 - rate): one mask for a batch (Wan et al. 2013)."""

    rate: float

    @classmethod
    def of(cls, linear: nn.Linear, rate: float) -> DropConnectLinear:
        """The layer with the weights of `linear`."""
        layer = cls(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        layer.weight, layer.bias, layer.rate = linear.weight, linear.bias, rate
        return layer

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, F.dropout(self.weight, self.rate, self.training), self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rate={self.rate}"
