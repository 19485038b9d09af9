"""What a network does in one forward pass: which modules are called with which tensors, what is added, by whom.

The pass runs on the meta device, which computes shapes only: it takes a fraction of a second for any network,
and consumes no randomness. Guessing the same from the network's text (the convolution before, the number of
features of the norm before) is wrong for several families.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from dltrain.data.types import ImageShape, InputSpec
from dltrain.layers.impl.shapes import Shapes

Shape = tuple[int, ...]

_ACTIVATIONS = {
    getattr(owner, name): name.removesuffix("_")
    for owner in (torch, F, Tensor)
    for name in (
        "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "elu", "elu_", "selu", "selu_", "celu", "celu_", "gelu",
        "silu", "mish", "hardswish", "hardtanh", "hardtanh_", "softplus", "prelu", "rrelu", "rrelu_",
    )
    if hasattr(owner, name)
}  # fmt: skip
_ADDITIONS = {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__}
_PRODUCTS = {torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__}
_VIEWS = {torch.flatten, Tensor.flatten, Tensor.view, Tensor.reshape, torch.reshape, Tensor.contiguous}


_NATIVE = 224
"""The least side, in pixels, of the images that a network is probed with: maps keep more than one pixel."""


@dataclass(frozen=True)
class Call:
    """One call of a module with one tensor: its place in the order of all calls, and what went in and came out.

    `listed` says that a list of tensors went in, of which `inputs` is the first.
    """

    order: int
    inputs: Tensor
    output: Tensor
    listed: bool

    @property
    def shape(self) -> Shape:
        """The input's shape."""
        return tuple(self.inputs.shape)


@dataclass(frozen=True)
class Addition:
    """One sum of two tensors, and its place in the order of the calls."""

    order: int
    operands: tuple[Tensor, Tensor]


@dataclass
class Probe:
    """What one forward pass of a network did. Tensors are on the meta device: only identity and shape count.

    `calls`: each module's calls with a tensor, or a list of them, by the module's name. `functions`: how many torch
    functions each module called itself, outside the modules in it. `additions`: the sums of two tensors of one
    shape that the module computed itself. `functional`: the activations that a module called as functions.
    `scaled`: each tensor that is a number times another one, with that other.
    """

    modules: dict[str, nn.Module]
    calls: dict[str, list[Call]] = field(default_factory=dict)
    functions: dict[str, int] = field(default_factory=dict)
    additions: dict[str, list[Addition]] = field(default_factory=dict)
    functional: dict[str, list[str]] = field(default_factory=dict)
    scaled: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def producer(self, tensor: Tensor, inside: str, before: int) -> str | None:
        """The outermost module strictly inside `inside` that made `tensor`, by the call number `before`, or None."""
        origin = next((other for result, other in self.scaled if result is tensor), tensor)
        found = [
            (-name.count("."), call.order, name)
            for name, calls in self.calls.items()
            if name and name.startswith(f"{inside}." if inside else "")
            for call in calls
            if call.output is origin and call.inputs is not origin and call.order < before
        ]
        return max(found)[2] if found else None

    def called(self, kind: type[nn.Module] | tuple[type[nn.Module], ...]) -> Iterator[str]:
        """The names of the called modules of a class, in the order of their first calls."""
        names = [name for name in self.calls if isinstance(self.modules[name], kind)]
        yield from sorted(names, key=lambda name: self.calls[name][0].order)


class _Functions(TorchFunctionMode):
    """Tells `seen` of every torch function with its result."""

    def __init__(self, seen: Callable[[Any, tuple[Any, ...], Any], None]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.seen(function, args, result)
        return result


def probe(network: nn.Module, shape: InputSpec) -> Probe:
    """What a training forward of two examples of `shape` does. Raises what the network raises."""
    modules = dict(network.named_modules())
    found, stack, names = Probe(modules), [""], {module: name for name, module in modules.items()}
    order = itertools.count()

    def seen(function: Any, args: tuple[Any, ...], result: Any) -> None:
        name = stack[-1]
        if function in _VIEWS or not isinstance(result, Tensor):
            return
        found.functions[name] = found.functions.get(name, 0) + 1
        if function in _ACTIVATIONS:
            found.functional.setdefault(name, []).append(_ACTIVATIONS[function])
        first, second = (*args, None, None)[:2]
        if function in _ADDITIONS and isinstance(second, Tensor) and first.shape == second.shape:
            found.additions.setdefault(name, []).append(Addition(next(order), (first, second)))
        if function in _PRODUCTS and isinstance(second, int | float):
            found.scaled.append((result, first))

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        stack.append(names[module])

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        name = stack.pop()
        first = args[0] if args else None
        listed = isinstance(first, list)
        inputs = first[0] if listed and first else first
        if isinstance(inputs, Tensor) and isinstance(output, Tensor):
            found.calls.setdefault(name, []).append(Call(next(order), inputs, output, listed))

    meta = {name: tensor.detach().to("meta") for name, tensor in tensors_of(network).items()}
    images = shape.example(2, "meta")
    with torch.no_grad(), torch.random.fork_rng(devices=[]), _hooked(network, enter, leave), _Functions(seen), Shapes():
        functional_call(network, meta, images, tie_weights=False)
    return found


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by one name for each place that holds them, for `functional_call` without `tie_weights`.

    With the names that it looks up itself, it does not put back the parameters of a module that has two names.
    """
    return {
        f"{name}.{key}" if name else key: tensor
        for name, module in network.named_modules()
        for key, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
    }


@contextmanager
def _hooked(network: nn.Module, enter: Any, leave: Any) -> Iterator[None]:
    """The network in training mode with hooks on all its modules, as it was afterwards."""
    modes = {module: module.training for module in network.modules()}
    hooks = [module.register_forward_pre_hook(enter) for module in modes]
    hooks += [module.register_forward_hook(leave) for module in modes]
    network.train()
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training


def native_probe(network: nn.Module, shape: InputSpec) -> Probe:
    """Of a network of images a probe at 224 pixels at least, or at `shape` for a network that takes no other."""
    if not isinstance(shape, ImageShape):
        return probe(network, shape)
    larger = ImageShape(shape.channels, max(shape.height, _NATIVE), max(shape.width, _NATIVE))
    try:
        return probe(network, larger)
    except Exception:  # libraries raise whatever they meet first, when a network is made for one size
        return probe(network, shape)
