"""Affine maps, the multilayer perceptron, and the plain convolutional network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import nn

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.types import ImageShape
from dltrain.layers.impl.modules import OnVectors

if TYPE_CHECKING:
    from dltrain.layers.activations import Activation
    from dltrain.layers.norms import Norm


def affine(size: int, outputs: int) -> nn.Module:
    """(B, ...) with `size` numbers an example -> (B, K), all zero at the start."""
    linear = nn.Linear(size, outputs)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.Flatten(), linear)


def mlp(
    size: int, outputs: int, hidden: list[int], activation: Activation, norm: Norm | None, dropout: float
) -> nn.Module:
    """(B, ...) with `size` numbers an example -> (B, K): per hidden width a linear layer, the norm, the activation, and
    dropout."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = size
    for units in hidden:
        layers.append(nn.Linear(width, units, bias=norm is None or not norm.shifts))
        if norm is not None:
            layers.append(OnVectors(norm.build(units)))
        layers += [activation.build(units), nn.Dropout(dropout)]  # also at 0, so that its value renames no weights
        width = units
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def convnet(
    shape: ImageShape, classes: int, *, widths: list[int], depth: int, kernel: int, norm: Norm | None,
    activation: Activation, pooling: Literal["max", "average"], dropout: float,
) -> nn.Module:  # fmt: skip
    """(B, C, H, W) -> (B, K): per stage convolutions and a pool, then the mean of each map and a linear layer."""
    stages: list[nn.Module] = []
    channels, height, width = shape.channels, shape.height, shape.width
    for out in widths:
        if norm is not None and height * width < norm.least_pixels:
            message = f"`{norm.name}` cannot normalise maps of {height}x{width}, which images of {shape} end in"
            raise ConfigError([Diagnostic(message, notes=("use fewer `widths`, or another norm",))])
        for _ in range(depth):
            stages += _convolution(channels, out, kernel, norm, activation)
            channels = out
        if min(height, width) >= 2:
            stages.append(nn.MaxPool2d(2) if pooling == "max" else nn.AvgPool2d(2))
            height, width = height // 2, width // 2
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, classes)]
    return nn.Sequential(*stages, *head)


def _convolution(channels: int, out: int, kernel: int, norm: Norm | None, activation: Activation) -> list[nn.Module]:
    """A convolution that keeps the size of its maps, then norm and activation; He initialisation."""
    convolution = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=norm is None or not norm.shifts)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    norms = [] if norm is None else [norm.build(out)]
    return [convolution, *norms, activation.build(out)]
