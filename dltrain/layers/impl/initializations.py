"""Initial weights, drawn and written: a network and a seed flow in, its weights change. Imported only to apply."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.data.random import derive_seed

Weighted = nn.Linear | nn.modules.conv._ConvNd
"""The layers whose weights are drawn: linear ones and convolutions, transposed ones too."""
Draw = Callable[[Tensor, Weighted, torch.Generator], object]
"""Writes the initial values of a layer's weight into a float32 tensor of its shape."""


def weighted_layers(model: nn.Module) -> Iterator[tuple[str, Weighted]]:
    """The layers with a weight to draw, in the model's order, each once."""
    for name, module in model.named_modules():
        if isinstance(module, Weighted):
            yield name, module


def fans(layer: Weighted) -> tuple[int, int]:
    """How many values each output sums, and how many outputs each input enters (before strides)."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    area = math.prod(layer.kernel_size)
    return layer.in_channels // layer.groups * area, layer.out_channels // layer.groups * area


@torch.no_grad()
def draw_weights(model: nn.Module, seed: int, draw: Draw, only: type[nn.Module] | None = None) -> None:
    """Draw each weight on the CPU, so that a seed gives the same on all devices, and set each bias to 0."""
    generator = torch.Generator().manual_seed(derive_seed(seed, 0, "initialization"))
    for _, layer in weighted_layers(model):
        if only is not None and not isinstance(layer, only):
            continue
        values = torch.empty(layer.weight.shape, device="cpu")
        draw(values, layer, generator)
        layer.weight.copy_(values)
        if layer.bias is not None:
            layer.bias.zero_()


def normal(values: Tensor, deviation: float, generator: torch.Generator) -> None:
    """Normal values of this standard deviation."""
    values.normal_(0.0, deviation, generator=generator)


def uniform(values: Tensor, deviation: float, generator: torch.Generator) -> None:
    """Uniform values of this standard deviation: up to sqrt(3) times it on both sides."""
    values.uniform_(-math.sqrt(3) * deviation, math.sqrt(3) * deviation, generator=generator)


def truncated(values: Tensor, deviation: float, generator: torch.Generator, cut: float) -> None:
    """Normal values cut at `cut` times the deviation that they had, and of this deviation after it."""
    inside = math.erf(cut / math.sqrt(2))
    kept = 1 - 2 * cut * math.exp(-(cut**2) / 2) / math.sqrt(2 * math.pi) / inside
    before = deviation / math.sqrt(kept)
    nn.init.trunc_normal_(values, 0.0, before, -cut * before, cut * before, generator=generator)


def dirac(values: Tensor, layer: Weighted) -> None:
    """The convolution that hands on its channels, per group; further outputs are 0."""
    groups = 1 if isinstance(layer, nn.Linear) else layer.groups
    nn.init.dirac_(values, groups)


@torch.no_grad()
def unit_variance(model: nn.Module, images: Tensor, tolerance: float, tries: int) -> None:
    """Divide each weight by the deviation of its layer's outputs, until their variance is 1 to `tolerance`.

    One forward in evaluation mode does all layers, each seeing what those before it give afterwards. A layer
    that is called twice is set at its first call; one with constant outputs is left.
    """
    done: set[nn.Module] = set()

    def scale(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        assert isinstance(module, Weighted)
        for _ in range(0 if module in done else tries):
            variance = output.var()
            if not variance > 0 or abs(variance - 1) <= tolerance:
                break
            module.weight.div_(variance.sqrt())
            output = module.forward(*inputs)
        done.add(module)
        return output

    modes = {module: module.training for module in model.modules()}
    hooks = [layer.register_forward_hook(scale) for _, layer in weighted_layers(model)]
    try:
        model.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
