"""How large the gradient of each layer is: where the first layers' is far below the last ones', gradients vanish.

Imports torch: import it where a training is built.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dltrain.runs.reports import Row

TAG = "norm/gradient/"
"""What the tag of a layer's gradient begins with, before the layer's name."""


def layers_of(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters of the layers that have a matrix or a kernel, by the layers' names."""
    layers: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        layer = name.partition(".parametrizations")[0] if ".parametrizations" in name else name.rpartition(".")[0]
        layers.setdefault(layer, []).append(parameter)
    return {name: own for name, own in layers.items() if any(p.ndim > 1 for p in own)}


class LayerGradients:
    """The norms of the gradients of the layers that have a matrix or a kernel, by the layers' names."""

    def __init__(self, model: nn.Module) -> None:
        self._layers = layers_of(model)
        self._norms: dict[str, Tensor] = {}

    def measure(self) -> None:
        """Of the gradients that are there now; a layer without any is left out."""
        found = {name: [p.grad for p in layer if p.grad is not None] for name, layer in self._layers.items()}
        self._norms = {name: nn.utils.get_total_norm(gradients) for name, gradients in found.items() if gradients}

    def row(self) -> Row:
        """What was measured last, by tag, in the order in which the network has its layers."""
        numbers = torch.stack(list(self._norms.values())).tolist() if self._norms else []
        return {TAG + name: number for name, number in zip(self._norms, numbers, strict=True)}
