"""What the layers of a network put out for a batch, and how much of a gradient its activations let through.

The forward pass is one of its own, in which hooks listen: the network runs as it is, whatever it was compiled to, and
afterwards its buffers and the random numbers are as before. Imports torch: import it where a training is built.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.engine.watching.histograms import counted
from dltrain.layers.impl.sites import is_gate
from dltrain.layers.roles import role_of

SILENT = 1e-3
"""Slope below which an activation passes no gradient."""
FLAT = 0.05
"""Share of its slope at 0 below which a sigmoid, or what is shaped like one, is saturated: beyond |x| = 4.4."""
FAR, NEAR = 40.0, 0.5
"""Inputs at which an activation shows its shape."""
GATES = re.compile(r"^S[Ee](?=[A-Z]|$)|Excit|Attention|Attn|Gate|C[Bb][Aa][Mm]|^E[Cc][Aa]")
"""What the classes of modules are called that weigh channels: theirs may well be silent."""
SINGLE = (nn.Linear, nn.LayerNorm, nn.Embedding)
"""Layers whose units stand in the last dimension."""


@dataclass(frozen=True)
class Activity:
    """What one layer put out in one look. The tensors wait on the device until they are asked for."""

    mean: Tensor
    deviation: Tensor
    silent: Tensor | None = None
    """Of an activation: the units (C,) through which no example of the batch lets a gradient pass; bool."""
    flat: Tensor | None = None
    """Of an activation that is shaped like a sigmoid: the share of its outputs that are saturated."""
    histogram: Tensor | None = None
    """See `counted`."""


def listened_to(network: nn.Module, weighted: Collection[str]) -> dict[str, nn.Module]:
    """The layers whose outputs are looked at, by name: activations outside of gates, and those that have weights."""
    gates = _gates(network)
    return {
        name: module
        for name, module in network.named_modules()
        if name in weighted or (role_of(module) == "activation" and name not in gates)
    }


def _gates(network: nn.Module) -> set[str]:
    """All that is in a module that weighs channels: it is called so, or it has a pool and a sigmoid."""
    owners = [
        name
        for name, module in network.named_modules()
        if name and (GATES.search(type(module).__name__) or _pools_and_gates(module))
    ]
    return {name for name, _ in network.named_modules() for owner in owners if f"{name}.".startswith(f"{owner}.")}


def _pools_and_gates(module: nn.Module) -> bool:
    children = list(module.children())
    pools = any(isinstance(child, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)) for child in children)
    return pools and any(is_gate(child) for child in children)


class Listener:
    """Looks at the activity of a network."""

    def __init__(self, network: nn.Module, weighted: Collection[str]) -> None:
        """weighted: the names of the layers that have weights."""
        self._network = network
        self._layers = listened_to(network, weighted)
        self._steepest: dict[str, Tensor | None] = {}
        """The slope at 0 of each activation that is shaped like a sigmoid, and None for others."""

    def listen(
        self, inputs: Tensor, autocast: Callable[[], AbstractContextManager[Any]], *, histograms: bool
    ) -> dict[str, Activity]:
        """What the layers put out for a batch, in the order in which they run; a layer that runs again has its number
        behind its name. The network is in the mode in which it is."""
        found: dict[str, Activity] = {}
        pass_ = _Pass(self._steepest, found, histograms)
        handles = []
        for name, module in self._layers.items():
            if role_of(module) == "activation":
                handles.append(module.register_forward_pre_hook(pass_.before(name), prepend=True))
            handles.append(module.register_forward_hook(pass_.after(name), prepend=True))
        try:
            with untouched(self._network, inputs.device), torch.no_grad(), autocast():
                self._network(inputs)
        finally:
            for handle in handles:
                handle.remove()
        return found


class _Pass:
    """The hooks of one forward pass."""

    def __init__(self, steepest: dict[str, Tensor | None], found: dict[str, Activity], histograms: bool) -> None:
        self._steepest, self._found, self._histograms = steepest, found, histograms
        self._slopes: dict[str, Tensor | None] = {}
        self._units: tuple[tuple[int, ...], int] | None = None
        """The shape of what the last layer with weights put out, and the dimension of its units."""

    def before(self, name: str) -> Callable[..., None]:
        """The hook before an activation, which may compute in place."""

        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
            self._slopes[name] = slopes(module, x) if x is not None and x.is_floating_point() else None
            if name not in self._steepest:
                known = x is not None and self._slopes[name] is not None
                self._steepest[name] = steepest(module, x) if known and x is not None else None

        return hook

    def after(self, name: str) -> Callable[..., None]:
        """The hook after a layer."""

        def hook(module: nn.Module, inputs: object, output: Any) -> None:
            first = next((each for each in output if isinstance(each, Tensor)), None) if isinstance(
                output, (tuple, list)) else output  # fmt: skip
            if not isinstance(first, Tensor) or not first.is_floating_point() or first.ndim < 2:
                return
            dimension = self._dimension(module, first)
            values = first.detach().float()
            deviation, mean = torch.std_mean(values, correction=0)
            histogram = counted(values) if self._histograms else None
            silent, flat = self._judged(name, dimension)
            key = name or type(module).__name__
            number = 2
            while key in self._found:
                key, number = f"{name}:{number}", number + 1
            self._found[key] = Activity(mean, deviation, silent, flat, histogram)

        return hook

    def _judged(self, name: str, dimension: int) -> tuple[Tensor | None, Tensor | None]:
        """Which units are silent, and how many of the outputs are flat."""
        slope = self._slopes.pop(name, None)
        if slope is None:
            return None, None
        silent = (slope > SILENT).movedim(dimension, 0).flatten(1).any(1).logical_not()
        steep = self._steepest[name]
        return silent, None if steep is None else (slope < FLAT * steep).float().mean()

    def _dimension(self, module: nn.Module, output: Tensor) -> int:
        """Where the units of an output stand: of an activation, where those of the layer before it do."""
        shape = tuple(output.shape)
        if isinstance(module, SINGLE):
            self._units = shape, output.ndim - 1
        elif role_of(module) is None or self._units is None or self._units[0] != shape:
            self._units = shape, output.ndim - 1 if output.ndim == 3 else 1
        return self._units[1]


def slopes(module: nn.Module, x: Tensor) -> Tensor | None:
    """The size of the derivative of an activation by each of its inputs, as the inputs are shaped; None where it is no
    function of each input alone, or has no derivative."""
    with suppress(RuntimeError, NotImplementedError), torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        x = x.detach().requires_grad_()
        out = module.forward(x.clone())  # it may compute in place
        if isinstance(out, Tensor) and out.shape == x.shape and out.requires_grad:
            (slope,) = torch.autograd.grad(out.sum(), x)
            return slope.detach().float().abs()
    return None


@torch.no_grad()
def steepest(module: nn.Module, x: Tensor) -> Tensor | None:
    """The slope about 0 of an activation that is shaped like a sigmoid: flat far from 0 on both sides, at two heights.
    None for others, those among them that are 0 for all inputs below 0. It waits for the device."""
    with torch.autocast(x.device.type, enabled=False):
        places = (-FAR, -FAR / 2, -NEAR, NEAR, FAR / 2, FAR)
        values = [module.forward(torch.full_like(x[:2], place)).float() for place in places]
    lowest, low, below, above, high, highest = values
    height = (highest - lowest).abs()
    ends = torch.maximum((low - lowest).abs(), (highest - high).abs())
    middle = torch.minimum((above - below).abs(), torch.minimum((below - lowest).abs(), (highest - above).abs()))
    shaped = (height > 0).all() & (ends <= 0.05 * height).all() & (middle > 0.05 * height).all()
    return (above - below).abs().max() / (2 * NEAR) if bool(shaped) else None


@contextmanager
def untouched(network: nn.Module, device: torch.device) -> Iterator[None]:
    """In this context the network may run: afterwards its buffers and the random numbers are as they were."""
    kept = [
        (module, name, buffer, buffer.detach().clone())
        for module in network.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    accelerators = [] if device.type == "cpu" else [device.index or 0]
    kind = "cuda" if device.type == "cpu" else device.type
    try:
        with torch.random.fork_rng(devices=accelerators, device_type=kind):
            yield
    finally:
        with torch.no_grad():
            for module, name, buffer, value in kept:
                buffer.detach().copy_(value)
                module._buffers[name] = buffer
