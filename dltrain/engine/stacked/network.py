"""Several networks of one form, computed as one program over stacked weights (torch.func). Imports torch.

    weights of each network -> gather -> (K, ...) -> forward of all -> (K, B, ...) -> backward -> gradients of each

The networks keep their own weights; the stacked ones are a copy that lives for a step. So whatever else holds a
network's weights (its optimizer, averages, a checkpoint) knows nothing of the others.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_map_only

Tensors = dict[str, Tensor]


class NotStackable(Exception):
    """Why trainings cannot be computed as one program."""


class StackedNetwork:
    """K networks that differ in nothing but the values of their tensors.

    `weights` and `buffers` are (K, ...) by name; each row lies in memory as the tensor of its network does, so that
    the gradients do too: fused optimizers take that for granted.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        """Raises NotStackable when the networks are of different forms."""
        self.networks = list(networks)
        self._parameters = [dict(network.named_parameters()) for network in networks]
        buffers = [dict(network.named_buffers()) for network in networks]
        if len({str(network) for network in networks}) > 1 or len({_form(n) for n in networks}) > 1:
            raise NotStackable("their networks differ in more than the values of their weights")
        self.weights: Tensors = {name: _rows_like(p, len(networks)) for name, p in self._parameters[0].items()}
        self.buffers: Tensors = {name: _rows_like(buffer, len(networks)) for name, buffer in buffers[0].items()}
        self._slots = [row for name in self.weights for row in self.weights[name].unbind()]
        self._sources: list[Tensor] = [own[name] for name in self.weights for own in self._parameters]
        self._buffer_slots = {name: rows.unbind() for name, rows in self.buffers.items()}
        self._buffers = {name: [own[name] for own in buffers] for name in self.buffers}
        self._places = [places_of(network) for network in networks]
        for name, weight in self.weights.items():
            weight.requires_grad_(self._parameters[0][name].requires_grad)

    @torch.no_grad()
    def gather(self) -> None:
        """Take the weights and buffers as they are in the networks now."""
        torch._foreach_copy_(self._slots, self._sources)
        for name, slots in self._buffer_slots.items():
            torch._foreach_copy_(list(slots), self._buffers[name])

    @torch.no_grad()
    def give_buffers(self, members: Collection[int]) -> None:
        """Give these networks the buffers that the passes have changed, such as statistics of batches."""
        for name, slots in self._buffer_slots.items():
            own = self._buffers[name]
            torch._foreach_copy_([own[member] for member in members], [slots[member] for member in members])

    def give_gradients(self, members: Collection[int]) -> None:
        """Let the gradients of these networks be those of their rows, and none where no pass has reached."""
        for name, weight in self.weights.items():
            rows: Sequence[Tensor | None] = [None] * len(self.networks) if weight.grad is None else weight.grad.unbind()
            for member in members:
                self._parameters[member][name].grad = rows[member]

    def gradients(self, without: Collection[Tensor] = ()) -> list[Tensor]:
        """The stacked gradients (K, ...) that there are. without: weights of any network whose rows are left out."""
        own = {name: p for own in self._parameters for name, p in own.items() if p in without} if without else {}
        return [w.grad for name, w in self.weights.items() if w.grad is not None and name not in own]

    def forget_gradients(self) -> None:
        """Begin anew."""
        for weight in self.weights.values():
            weight.grad = None

    def forward(self, inputs: Tensor, form: int) -> Any:
        """What each network puts out for inputs (B, ...): tensors (K, B, ...). Layers draw the same random numbers for
        all, those that one alone would draw. form: which of the networks lends its modules, with their modes."""
        network, places = self.networks[form], self._places[form]

        def one(*tensors: Tensor) -> Any:
            with holding(places, tensors):
                outputs = network(inputs)
            several(outputs)  # whatever else it puts out cannot be stacked
            return outputs

        stacked = [*self.weights.values(), *self.buffers.values()]
        if len(self.networks) == 1:  # then torch takes (1, B, ...) for a layout of other operations, which it lacks
            return tree_map_only(Tensor, lambda output: output[None], one(*(rows[0] for rows in stacked)))
        with warnings.catch_warnings():  # some operations are done for one network after another
            warnings.filterwarnings("ignore", "There is a performance drop")
            return vmap(one, randomness="same")(*stacked)


Places = list[tuple[dict[str, Any], str, int]]
"""Where tensors hang in a network: a mapping of a module, the key in it, and which tensor it is."""


def places_of(network: nn.Module) -> Places:
    """Those of all parameters and buffers, numbered in this order; tied ones hang in several places."""
    tensors = [*network.parameters(), *network.buffers()]
    numbers = {id(tensor): number for number, tensor in enumerate(tensors)}
    mappings = (own for module in network.modules() for own in (module._parameters, module._buffers))
    return [(own, key, numbers[id(value)]) for own in mappings for key, value in own.items() if value is not None]


@contextmanager
def holding(places: Places, tensors: Sequence[Tensor]) -> Iterator[None]:
    """In this context the network holds these tensors. torch's functional_call looks for the places in each call, which
    takes longer than a pass of a small network."""
    own = [mapping[key] for mapping, key, _ in places]
    for mapping, key, number in places:
        mapping[key] = tensors[number]
    try:
        yield
    finally:
        for (mapping, key, _), tensor in zip(places, own, strict=True):
            mapping[key] = tensor


def _form(network: nn.Module) -> tuple[Any, ...]:
    """What networks of one form have in common, besides their text."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    return tuple((name, t.shape, t.stride(), t.dtype, t.device, t.requires_grad) for name, t in tensors)


def _rows_like(tensor: Tensor, count: int) -> Tensor:
    """Memory for so many tensors that lie as this one does."""
    strides = (tensor.numel(), *tensor.stride())
    return torch.empty_strided((count, *tensor.shape), strides, dtype=tensor.dtype, device=tensor.device)


def several(outputs: Any) -> list[Tensor]:
    """The outputs of a network: the answer, and those of auxiliary heads. Raises TypeError for others."""
    found = list(outputs) if isinstance(outputs, tuple) else [outputs]
    if not all(isinstance(output, Tensor) for output in found):
        raise TypeError("they put out more than tensors")
    return found
