"""Layers with normalised weights, as modules. Imported only when a network is built."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from dltrain.layers.roles import Role

Layer = nn.Linear | nn.Conv2d


def weight_normalized(layer: nn.Module) -> nn.Module:
    """The same layer with weights g v / |v| for each output, and with a bias. Raises ValueError for another layer."""
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        raise ValueError(f"weight_norm rewrites linear layers and convolutions, not {type(layer).__name__}")
    if layer.bias is None:
        layer.bias = nn.Parameter(torch.zeros(layer.weight.shape[0], device=layer.weight.device))
    parametrizations.weight_norm(layer, dim=0)
    return layer


class CosineLayer(nn.Module):
    """The cosine between weights and inputs: a linear layer's (..., I) -> (..., O), or a convolution's.

    With `centered`, weights and inputs of each output lose their means first. All outputs are in [-1, 1] but
    for the scale. Raises ValueError for another layer.
    """

    role: ClassVar[Role] = "norm"

    def __init__(self, layer: nn.Module, centered: bool, scale: bool, epsilon: float) -> None:
        super().__init__()
        if not isinstance(layer, nn.Linear | nn.Conv2d) or type(layer).forward not in (
            nn.Linear.forward, nn.Conv2d.forward,
        ):  # fmt: skip
            raise ValueError(f"cosine_norm rewrites linear layers and convolutions, not {type(layer).__name__}")
        self.centered, self.epsilon = centered, epsilon
        self.weight = layer.weight
        self.scale = nn.Parameter(torch.ones(len(layer.weight), device=layer.weight.device)) if scale else None
        self.convolution = isinstance(layer, nn.Conv2d)
        self.options: dict[str, Any] = {}
        if isinstance(layer, nn.Conv2d):
            self.options = {key: getattr(layer, key) for key in ("stride", "padding", "dilation", "groups")}

    def forward(self, inputs: Tensor) -> Tensor:
        weight = self.weight
        around = tuple(range(1, weight.ndim))
        if self.centered:
            weight = weight - weight.mean(around, keepdim=True)
        weight = weight / (weight.square().sum(around, keepdim=True) + self.epsilon).sqrt()
        out = self._product(inputs, weight)
        out = out * (self._squares(inputs) + self.epsilon).rsqrt()
        if self.scale is None:
            return out
        return out * (self.scale[:, None, None] if self.convolution else self.scale)

    def _squares(self, inputs: Tensor) -> Tensor:
        """The squared length of the inputs of each output, broadcast over the outputs."""
        groups = self.options.get("groups", 1)
        ones = torch.ones((groups, *self.weight.shape[1:]), dtype=inputs.dtype, device=inputs.device)
        squares = self._product(inputs.square(), ones)
        if self.centered:
            squares = squares - self._product(inputs, ones).square() / ones[0].numel()
        squares = squares.clamp(min=0)
        return squares if groups == 1 else squares.repeat_interleave(len(self.weight) // groups, 1)

    def _product(self, inputs: Tensor, weight: Tensor) -> Tensor:
        if not self.convolution:
            return F.linear(inputs, weight)
        return F.conv2d(inputs, weight, **self.options)

    def extra_repr(self) -> str:
        outputs, *inputs = self.weight.shape
        return f"{inputs} -> {outputs}, centered={self.centered}, scale={self.scale is not None}"
