"""Layers in a row: each is made for what the one before puts out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dltrain.config import ConfigError, Diagnostic
from dltrain.layers.impl.probe import tensors_of
from dltrain.models.building_layers import BuildingLayer, Dimensions
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
