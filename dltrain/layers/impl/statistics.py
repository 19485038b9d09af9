"""Layers that measure their batches: which they are, what they get to see, and measuring anew.

Imports torch: import it where a network is built.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from dltrain.data.types import InputSpec
from dltrain.layers.impl.norms import Averaged, SwitchableNorm, SyncBatchNorm
from dltrain.layers.impl.probe import probe

AVERAGES = ("running_mean", "running_center")
"""A layer with one of these buffers and a momentum keeps statistics of its training batches."""


def averaging_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that keep running statistics of their batches."""
    return [
        layer
        for layer in model.modules()
        if isinstance(getattr(layer, "momentum", None), float)
        and any(isinstance(getattr(layer, name, None), Tensor) for name in AVERAGES)
    ]


@contextmanager
def measuring(model: nn.Module, without: Collection[nn.Module] = ()) -> Iterator[Iterator[None]]:
    """In this context each forward is of a batch that counts: the running statistics become the means of those of all.

    Ask the iterator for the next number before each forward. All other layers are as they are, so that dropout is
    silent in a network in evaluation mode. without: layers whose statistics stay.
    """
    layers = [layer for layer in averaging_layers(model) if layer not in without]
    before = [(layer.momentum, layer.training) for layer in layers]

    def numbers() -> Iterator[None]:
        number = 0
        while True:
            number += 1
            for layer in layers:
                layer.momentum = 1 / number  # type: ignore[assignment]
            yield

    for layer in layers:
        layer.training = True
    try:
        yield numbers()
    finally:
        for layer, (momentum, training) in zip(layers, before, strict=True):
            layer.momentum, layer.training = momentum, training


def single_values(model: nn.Module, shape: InputSpec, images: int, devices: int = 1) -> dict[str, nn.Module]:
    """The layers, by name, that would measure single values in forwards of so many images of `shape`: their variance is
    0, and torch refuses them. Batch norms do with one image of one pixel; norms of a channel alone do with one pixel.

    Those that are frozen for good measure nothing. devices: how many take part in a forward, each with its images;
    `sync_batch_norm` measures them together. Empty where the network runs with numbers only.
    """
    suspects = {name: layer for name, layer in model.named_modules() if _looks_at_pixels(layer, images, devices)}
    if not suspects:
        return {}
    try:
        calls = probe(model, shape).calls
    except Exception:  # libraries raise whatever they meet first
        return {}
    return {
        name: layer
        for name, layer in suspects.items()
        if any(math.prod(call.shape[2:]) == 1 for call in calls.get(name, ()))
    }


def _looks_at_pixels(layer: nn.Module, images: int, devices: int) -> bool:
    """Whether a layer measures nothing but the pixels of a channel of a single image."""
    weights = list(layer.parameters(recurse=False))
    if weights and not any(weight.requires_grad for weight in weights):
        return False
    if isinstance(layer, nn.GroupNorm):
        return layer.num_groups == layer.num_channels
    if isinstance(layer, (_BatchNorm, Averaged, SwitchableNorm)):
        return images == 1 and not (devices > 1 and isinstance(layer, SyncBatchNorm))
    return isinstance(layer, _InstanceNorm)
