"""Whether torch computes for several networks together what it computes for each alone. Imports torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.engine.stacked.network import NotStackable, StackedNetwork, several

EXACT, ROUGH = 1e-6, 0.1
"""The share of a norm by which both may differ, in float64 and in fewer bits: networks make much of rounding, above all
their norms of few examples."""
Autocast = Callable[[], AbstractContextManager[Any]]


def draws_alike(networks: Sequence[nn.Module], example: Tensor, autocast: Autocast) -> bool:
    """Compute an example batch (B, ...) in both ways, with copies of the first and the last of the networks.

    In float64, unless the networks have layers that cannot. autocast: of forward passes.
    Returns whether layers draw the numbers that they draw in a network alone: kernels of GPUs may draw others. Raises
    NotStackable when outputs, changed buffers or gradients are others than alone.
    """
    pair = [networks[0], networks[-1]]
    try:
        with torch.random.fork_rng([example.device] if example.device.type == "cuda" else []):
            try:
                return _compare([copy.deepcopy(each).double() for each in pair], example.double(), nullcontext, EXACT)
            except (RuntimeError, TypeError):
                return _compare([copy.deepcopy(each) for each in pair], example, autocast, ROUGH)
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NotStackable(f"torch cannot compute their networks together: {first}") from None


def _compare(networks: Sequence[nn.Module], example: Tensor, autocast: Autocast, share: float) -> bool:
    for mode in (True, False):
        for network in networks:
            network.train(mode)
        if _agree(networks, example, autocast, share):
            return mode
    raise NotStackable("torch computes something else for their networks together than for each alone")


def _agree(networks: Sequence[nn.Module], example: Tensor, autocast: Autocast, share: float) -> bool:
    """Whether two networks put out, change and derive together what they do alone."""
    together = StackedNetwork(networks)
    together.gather()
    torch.manual_seed(0)
    with autocast():
        stacked = several(together.forward(example, 0))
    _backward(stacked)
    for member, network in enumerate(networks):
        alone = copy.deepcopy(network)
        torch.manual_seed(0)
        with autocast():
            outputs = several(alone(example))
        _backward(outputs)
        pairs = [*zip(outputs, (output[member] for output in stacked), strict=True)]
        pairs += [(buffer, together.buffers[name][member]) for name, buffer in alone.named_buffers()]
        gradients = [(parameter.grad, together.weights[name].grad) for name, parameter in alone.named_parameters()]
        if any((own is None) != (rows is None) for own, rows in gradients):
            return False
        found = [(own, rows[member]) for own, rows in gradients if own is not None and rows is not None]
        if found:  # as one: where a gradient vanishes, rounding is all that there is of it
            pairs.append((_joined(own for own, _ in found), _joined(rows for _, rows in found)))
        if not all(_near(*pair, share) for pair in pairs):
            return False
    return True


def _joined(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _backward(outputs: Sequence[Tensor]) -> None:
    """The gradients of the outputs, whose last numbers count more than the first ones."""
    given = [output for output in outputs if output.requires_grad]
    weights = [torch.linspace(0.5, 1.5, o.shape[-1], dtype=o.dtype, device=o.device).expand_as(o) for o in given]
    torch.autograd.backward(given, weights)


def _near(alone: Tensor, together: Tensor, share: float) -> bool:
    """Whether two tensors differ by rounding alone."""
    difference = alone.detach().float() - together.detach().float()
    return bool(difference.norm() <= share * alone.detach().float().norm() + 1e-12)
