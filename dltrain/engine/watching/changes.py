"""What a step does to the weights of each layer: its gradient, and how far it moves them. Imports torch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dltrain.engine.layer_gradients import layers_of
from dltrain.engine.watching.histograms import counted


@dataclass(frozen=True)
class Change:
    """What one step did to one layer. The tensors wait on the device until they are asked for."""

    gradient: Tensor
    """Its norm, before it was cut; 0 where there was none."""
    weight: Tensor
    """The norm of the weights before the step."""
    update: Tensor
    """The norm of what was added to them."""
    histograms: dict[str, Tensor]
    """`gradients` and `weights`, see `counted`."""


class Changes:
    """Measures the layers that are trained, in one step at a time: `before` it, at its `gradients`, and `after` it."""

    def __init__(self, network: nn.Module) -> None:
        trained = {name: [p for p in own if p.requires_grad] for name, own in layers_of(network).items()}
        self.layers = {name: own for name, own in trained.items() if own}
        self._before: dict[str, list[Tensor]] = {}
        self._gradients: dict[str, tuple[Tensor, Tensor | None]] = {}

    def before(self, frozen: Collection[Tensor]) -> None:
        """Keep the weights that learn in this step."""
        self._before = {
            name: [weight.detach().clone() for weight in own]
            for name, own in self.layers.items()
            if not any(weight in frozen for weight in own)
        }
        self._gradients = {}

    def gradients(self, *, histograms: bool) -> None:
        """Measure the gradients that are there now."""
        for name in self._before:
            found = [p.grad for p in self.layers[name] if p.grad is not None]
            zero = torch.zeros((), device=self.layers[name][0].device)
            norm = nn.utils.get_total_norm(found) if found else zero
            largest = max(found, key=Tensor.numel, default=None)
            counts = counted(largest) if histograms and largest is not None else None
            self._gradients[name] = norm, counts

    def after(self, *, histograms: bool) -> dict[str, Change]:
        """What has become of the weights, by layer, in the network's order."""
        found = {}
        for name, before in self._before.items():
            now = [weight.detach() for weight in self.layers[name]]
            moved = [one.float() - other.float() for one, other in zip(now, before, strict=True)]
            gradient, counts = self._gradients[name]
            shown = {} if counts is None else {"gradients": counts}
            if histograms:
                shown["weights"] = counted(max(before, key=Tensor.numel))
            weight, update = nn.utils.get_total_norm(before), nn.utils.get_total_norm(moved)
            found[name] = Change(gradient.detach(), weight, update, shown)
        self._before, self._gradients = {}, {}
        return found
