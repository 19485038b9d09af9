"""Blocks of sequential networks, and the chain that they form: each layer is made for what the one before puts out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dltrain.config import ConfigError, Diagnostic
from dltrain.layers.impl.probe import tensors_of
from dltrain.models.building_layers import BuildingLayer, Dimensions
from dltrain.models.impl.densenet import DenseLayer
from dltrain.models.impl.modular import ShuffleUnit
from dltrain.models.impl.parts import Layers


class NothingLeftError(ValueError):
    """The maps are smaller than a window: larger images would do."""


def chain(
    layers: Sequence[BuildingLayer], given: Dimensions, outputs: int, parts: Layers
) -> tuple[nn.Sequential, Dimensions]:
    """The layers, one after the other, and the dimensions of what the last one puts out for one example.

    Raises ConfigError, at the layer, for one that cannot follow, and NothingLeftError for images that are too small.
    """
    made: list[nn.Module] = []
    for index, layer in enumerate(layers):
        form = "maps" if len(given) == 3 else "vectors"
        if layer.takes not in (form, "both"):
            remedy = "put `flatten` or `global_pool` before it" if form == "maps" else "put it before `flatten`"
            raise _cannot(index, layer, f"takes {layer.takes}, and gets {form}: {remedy}")
        try:
            module = layer.build(given, outputs, parts)
        except ConfigError as error:  # of a layer inside it
            raise ConfigError(
                [Diagnostic(d.message, key=f"layers.{index}.{d.key}") for d in error.diagnostics]
            ) from None
        except NothingLeftError:
            raise
        except ValueError as error:
            raise _cannot(index, layer, f"cannot work on {_text(given)}: {error}") from None
        try:
            given = _after(module, given)
        except Exception as error:  # torch raises several kinds
            reason = next(iter(str(error).splitlines()), "")
            raise NothingLeftError(f"nothing is left for layer {index + 1} (`{layer.name}`): {reason}") from None
        made.append(module)
    return nn.Sequential(*made), given


def sequential(layers: Sequence[BuildingLayer], given: Dimensions, outputs: int, parts: Layers) -> nn.Module:
    """The whole network: (B, *given) -> (B, outputs). Raises ConfigError when it does not end so."""
    network, found = chain(layers, given, outputs, parts)
    if found != (outputs,):
        last = len(layers) - 1
        ending = "end with `global_pool`, `flatten` or `linear`, and leave the number of its units or channels out"
        what = f"is the last one and puts out {_text(found)}, but the task wants {outputs} numbers: {ending}"
        raise _cannot(last, layers[last], what)
    return network


def _cannot(index: int, layer: BuildingLayer, what: str) -> ConfigError:
    return ConfigError([Diagnostic(f"layer {index + 1} (`{layer.name}`) {what}", key=f"layers.{index}")])


def _text(dimensions: Dimensions) -> str:
    if len(dimensions) == 1:
        return f"a vector of {dimensions[0]:,}"
    return f"{dimensions[0]} maps of {'x'.join(map(str, dimensions[1:]))}"


def _after(module: nn.Module, given: Dimensions) -> Dimensions:
    """The dimensions of an example behind `module`, computed on the meta device. Draws no random numbers."""
    meta = {name: tensor.to("meta") for name, tensor in tensors_of(module).items()}
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            out: Tensor = functional_call(module, meta, torch.empty(2, *given, device="meta"))
    finally:
        module.train(training)
    return tuple(out.shape[1:])


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
