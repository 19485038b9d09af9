"""What a network and its optimizer draw in a step: functions of (seed, step). Imports torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dltrain.data.random import derive_seed
from dltrain.engine.distributed import Group


@dataclass(frozen=True)
class Seeds:
    """Sets what is drawn from within a step."""

    seed: int
    """Of the experiment."""
    device: torch.device
    group: Group

    def layers(self, step: int) -> None:
        """For a pass of the step's batch through the network. What layers draw is each process's own."""
        rank = self.group.rank
        seed_layers(derive_seed(self.seed, step, "layers", *([rank] if rank else [])), self.device)

    def optimizer(self, step: int) -> None:
        """For the step of an optimizer that draws: of several processes, all must draw the same."""
        if self.group.size > 1:
            seed_layers(derive_seed(self.seed, step, "weights"), self.device)

    def direction(self, step: int, number: int) -> int:
        """The seed of direction `number` of those in which a step tries the weights: the same in all processes."""
        return derive_seed(self.seed, step, "direction", number)


def seed_layers(seed: int, device: torch.device) -> None:
    """Seed what layers draw from (dropout, stochastic depth). The generators directly: torch.manual_seed
    takes hundreds of times longer in a CUDA build."""
    for generator in generators(device):
        generator.manual_seed(seed)


def generators(device: torch.device) -> list[torch.Generator]:
    """What layers and optimizers on a device draw from."""
    found = [torch.default_generator]
    if device.type == "cuda":
        found.append(torch.cuda.default_generators[device.index or 0])
    elif device.type == "mps":
        found.append(torch.mps._get_default_mps_generator())
    return found
