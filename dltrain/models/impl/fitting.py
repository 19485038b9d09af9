"""Does a network take these images? Found out by a forward on the meta device, which computes shapes only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.func import functional_call

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.types import ImageShape
from dltrain.layers.impl.probe import tensors_of
from dltrain.layers.impl.shapes import Shapes

_SIZES = (28, 32, 48, 56, 64, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 320, 336, 384, 448, 512, 518, 560)
"""Sizes that networks with a fixed input size are tried at, when they refuse the one that they were given."""

_GREATEST = 512


def fit(
    label: str, shape: ImageShape, construct: Callable[[ImageShape], nn.Module], fixed: bool, training: bool = False
) -> nn.Module:
    """`construct(shape)`, after a check that the network takes such images.

    `fixed` says that a network is made for one image size, given to its constructor; `training`, that it does more
    in training, which must take the images too. Raises ConfigError
    with a size that works when this one does not.
    """
    network, reason = _attempt(construct, shape, training)
    if reason is None:
        assert network is not None
        return network

    def works(size: int) -> bool:
        square = ImageShape(shape.channels, size, size)
        if network is not None and not fixed:
            return refusal(network, square, training) is None
        with torch.device("meta"):
            return _attempt(construct, square, training)[1] is None

    side = min(shape.height, shape.width)
    if fixed:
        if found := next((size for size in _SIZES if size >= side and works(size)), None):
            raise _cannot(label, shape, f"it takes {found}x{found}, for instance: set `data.size: {found}`")
    elif works(_GREATEST):
        raise too_small(label, shape, _least(works, 1, _GREATEST))
    raise _cannot(label, shape, f"the network says: {reason}")


def refusal(network: nn.Module, shape: ImageShape, training: bool = False) -> str | None:
    """Why a forward of two images of `shape` fails, or None when it works. Consumes no randomness."""
    size = (2, shape.channels, shape.height, shape.width)
    meta = {name: tensor.to("meta") for name, tensor in tensors_of(network).items()}
    was_training = network.training
    network.train(training)
    try:
        with torch.no_grad(), Shapes():
            functional_call(network, meta, torch.empty(size, device="meta"), tie_weights=False)
    except Exception as error:  # libraries raise whatever they meet first: AssertionError, RuntimeError, IndexError
        return next(iter(str(error).splitlines()), "") or type(error).__name__
    finally:
        network.train(was_training)
    return None


def too_small(label: str, shape: ImageShape, least: int) -> ConfigError:
    """The error for images with a side under `least` pixels."""
    return _cannot(label, shape, f"the least size that it takes is {least}x{least}: set `data.size: {least}` or more")


def _cannot(label: str, shape: ImageShape, note: str) -> ConfigError:
    return ConfigError([Diagnostic(f"model `{label}` cannot take images of {shape}", notes=(note,))])


def _attempt(
    construct: Callable[[ImageShape], nn.Module], shape: ImageShape, training: bool
) -> tuple[nn.Module | None, str | None]:
    """The network and None, or what it could not be made or run for."""
    try:
        network = construct(shape)
    except (AssertionError, ValueError, RuntimeError, ZeroDivisionError) as error:
        return None, next(iter(str(error).splitlines()), "") or type(error).__name__
    return network, refusal(network, shape, training)


def _least(works: Callable[[int], bool], low: int, high: int) -> int:
    """The least size that works, where every size above it works too; `high` does."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if works(middle) else (middle + 1, high)
    return low
