"""What a network costs, layer by layer: measured by one training forward on the meta device, which computes no numbers.

Imports torch: import it where a plan is made.
"""

from __future__ import annotations

import copy
import warnings
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from dltrain.data.types import InputSpec
from dltrain.layers.impl.probe import tensors_of
from dltrain.layers.impl.shapes import Shapes

ROWS = 40
"""Rows that a table of layers may have when no depth is asked for."""

_LOW_PRECISION = {
    torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d,
    F.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, torch.bmm, Tensor.bmm, torch.addmm,
    torch.baddbmm, F.scaled_dot_product_attention,
}  # fmt: skip
"""What autocast does in bfloat16 or float16: the products."""


@dataclass(frozen=True)
class Layer:
    """A row of the table: `output` is the shape for one image, or None for what is never called as a module."""

    name: str
    type: str
    output: tuple[int, ...] | None
    parameters: int
    multiply_adds: int


@dataclass
class Measured:
    """One training forward of a network.

    `multiply_adds`: of one image. `activation_bytes`: what the forward of the whole batch keeps for the backward,
    the images included, parameters and buffers not. `outputs` and `own` have each module's output shape for one image
    and its multiply-adds outside the modules in it; `inputs` the shapes that each convolution got.
    """

    network: nn.Module
    shape: InputSpec
    multiply_adds: int = 0
    activation_bytes: int = 0
    outputs: dict[nn.Module, tuple[int, ...]] = field(default_factory=dict)
    own: dict[nn.Module, int] = field(default_factory=dict)
    inputs: dict[nn.Module, tuple[int, ...]] = field(default_factory=dict)

    def layers(self, depth: int | None = None) -> list[Layer]:
        """The network as rows of modules `depth` levels down, which add up to the whole; by default as deep as
        ROWS rows allow."""
        if depth is not None:
            return list(self._rows(self.network, "", depth, set()))
        deepest = max(name.count(".") + 1 if name else 0 for name, _ in self.network.named_modules())
        found = self.layers(1)
        for level in range(2, deepest + 1):
            rows = self.layers(level)
            if len(rows) > ROWS:
                break
            found = rows
        return found

    def _rows(self, module: nn.Module, name: str, depth: int, seen: set[int]) -> Iterator[Layer]:
        """`seen` holds the ids of the modules and parameters that have had their row: shared ones count once."""
        if id(module) in seen or isinstance(module, nn.Identity):
            return
        children = list(module.named_children())
        whole = (name.count(".") + 1 if name else 0) >= depth or not children
        inside = [part for part in module.modules() if id(part) not in seen] if whole else [module]
        seen.update(map(id, inside))
        parameters = [p for part in inside for p in part.parameters(recurse=False)]
        unique = {id(p): p.numel() for p in parameters if id(p) not in seen}
        seen.update(unique)
        multiply_adds = sum(self.own.get(part, 0) for part in inside)
        output = self.outputs.get(module) or next(
            (self.outputs[m] for m in reversed(inside) if m in self.outputs), None
        )
        if unique or multiply_adds or (whole and output is not None):
            yield Layer(name or "(network)", type(module).__name__, output, sum(unique.values()), multiply_adds)
        if not whole:
            for key, child in children:
                yield from self._rows(child, f"{name}.{key}" if name else key, depth, seen)


def measure(network: nn.Module, shape: InputSpec, batch: int, dtype: torch.dtype = torch.float32) -> Measured:
    """What a training forward of `batch` images costs, with products in `dtype`. Consumes no randomness.

    A network whose forward looks at numbers is measured with two real images, unless it is on the meta device itself.
    Raises what the network raises.
    """
    try:
        return _measure(network, shape, batch, dtype, torch.device("meta"))
    except Exception:  # libraries raise whatever they meet first
        if any(tensor.is_meta for tensor in network.state_dict().values()):
            raise
    found = _measure(network, shape, 2, dtype, torch.device("cpu"))
    found.activation_bytes = found.activation_bytes * batch // 2
    return found


def _measure(network: nn.Module, shape: InputSpec, batch: int, dtype: torch.dtype, device: torch.device) -> Measured:
    found = Measured(network, shape)
    counter = FlopCounterMode(display=False)
    stack: list[list[int]] = []

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        stack.append([counter.get_total_flops(), 0])
        if isinstance(module, _ConvNd) and args and isinstance(args[0], Tensor):
            found.inputs[module] = tuple(args[0].shape[1:])

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        start, inside = stack.pop()
        flops = counter.get_total_flops() - start
        found.own[module] = found.own.get(module, 0) + (flops - inside) // (2 * batch)
        if stack:
            stack[-1][1] += flops
        while isinstance(output, (list, tuple)) and output:
            output = output[0]
        if isinstance(output, Tensor):
            found.outputs[module] = tuple(output.shape[1:])

    tensors = tensors_of(network)
    unique = {id(tensor): tensor for tensor in tensors.values()}
    copied = {
        key: torch.empty_like(tensor, device=device).copy_(tensor).detach().requires_grad_(tensor.requires_grad)
        for key, tensor in unique.items()
    }
    known = {tensor.untyped_storage()._cdata for tensor in copied.values()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if (storage := tensor.untyped_storage()._cdata) not in known:
            kept.setdefault(storage, tensor)
        return tensor

    images = shape.example(batch, device)
    modes = {module: module.training for module in network.modules()}
    hooks = [module.register_forward_pre_hook(enter) for module in modes]
    hooks += [module.register_forward_hook(leave) for module in modes]
    network.train()
    try:
        with (
            warnings.catch_warnings(), torch.enable_grad(), torch.random.fork_rng(devices=[]),
            counter, saved_tensors_hooks(keep, lambda tensor: tensor), _Products(dtype), Shapes(),
        ):  # fmt: skip
            warnings.simplefilter("ignore")
            copies = {name: copied[id(tensor)] for name, tensor in tensors.items()}
            functional_call(network, copies, images, tie_weights=False)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    found.multiply_adds = counter.get_total_flops() // (2 * batch)
    found.activation_bytes = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return found


def forward_bytes(network: nn.Module, shape: InputSpec, batch: int, dtype: torch.dtype = torch.float32) -> int:
    """The most that a forward pass of `batch` images holds at once, these included, where no backward pass follows.

    Found with no numbers; where the network looks at some, with two images. Raises what the network raises.
    """
    for device, images in (("meta", batch), ("cpu", 2)):
        copied, alive = copy.deepcopy(network).to(device).train(), _Alive()
        try:
            with (
                warnings.catch_warnings(), torch.no_grad(), torch.random.fork_rng(devices=[]), _Products(dtype), alive,
            ):  # fmt: skip
                warnings.simplefilter("ignore")
                copied(alive.count(shape.example(images, device)))
        except Exception:  # libraries raise whatever they meet first
            if device == "cpu" or any(tensor.is_meta for tensor in network.state_dict().values()):
                raise
        else:
            break
    return alive.peak * batch // images


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that operations make, while somebody holds them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._holders: Counter[int] = Counter()

    def count(self, tensor: Tensor) -> Tensor:
        """Take a tensor in."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if not self._holders[key]:
            self.now += size
            self.peak = max(self.peak, self.now)
        self._holders[key] += 1
        weakref.finalize(tensor, self._forget, key, size)
        return tensor

    def _forget(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            self.now -= size

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        known = {id(value) for value in tree_leaves((args, kwargs))}
        for value in tree_leaves(made):
            if isinstance(value, Tensor) and id(value) not in known:  # not what an operation changes in place
                self.count(value)
        return made


class _Products(TorchFunctionMode):
    """What the meta device lacks: autocast (products in `dtype`, the rest as it comes) and fused attention."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.dtype != torch.float32 and function in _LOW_PRECISION:
            args = tuple(self._cast(value) for value in args)
            kwargs = {key: self._cast(value) for key, value in kwargs.items()}
        if function is F.scaled_dot_product_attention and len(args) == 3 and kwargs.get("attn_mask") is None:
            # Where there are numbers, a fused kernel that keeps no matrix of attention runs.
            dropout, causal = kwargs.get("dropout_p", 0.0), kwargs.get("is_causal", False)
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*args, dropout, causal)[0]
        return function(*args, **kwargs)

    def _cast(self, value: Any) -> Any:
        return value.to(self.dtype) if isinstance(value, Tensor) and value.dtype == torch.float32 else value
