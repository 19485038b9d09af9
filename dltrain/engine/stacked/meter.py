"""The metrics of several trainings over the same batches, summed together. Imports torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from dltrain.tasks.impl.meters import TOGETHER, Meter

MOST = 1 << 20
"""Numbers that networks have put out and that are kept."""


class StackedMeter:
    """What the meters of K trainings would have summed since the last `give`.

    Results are kept for as many batches as a meter keeps, or until they are many numbers, and summed by one of the
    meters, each batch of each training by itself.
    """

    def __init__(self, meters: Sequence[Meter]) -> None:
        self._meters = meters
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []
        self._sums: list[tuple[Tensor, dict[str, Tensor]]] = []
        self._examples = 0

    def update(self, losses: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch: losses (K, B), outputs (K, B, ...), targets (B, ...), which all have in common."""
        losses, shape = losses.detach(), losses.shape
        repeated = targets.expand(shape[0], *targets.shape).flatten(0, 1)
        outputs, repeated = self._meters[0].kept(outputs.detach().flatten(0, 1), repeated)
        if self._pending:
            many = (len(self._pending) + 1) * outputs.numel() > MOST or len(self._pending) == TOGETHER
            if many or self._pending[0][1].shape != outputs.shape:
                self._sum()
        self._pending.append(
            (losses, outputs.view(*shape, *outputs.shape[1:]), repeated.view(*shape, *repeated.shape[1:]))
        )
        self._examples += shape[1]

    @torch.no_grad()
    def _sum(self) -> None:
        if not self._pending:
            return
        count, members = len(self._pending), len(self._meters)
        losses, outputs, targets = (torch.cat(values) for values in zip(*self._pending, strict=True))
        self._pending = []
        summed, others = self._meters[0].sums_of(losses, outputs, targets)
        by_member = {name: values.view(count, members, *values.shape[1:]) for name, values in others.items()}
        self._sums.append((summed.view(count, members), by_member))

    def give(self, members: Collection[int]) -> None:
        """Hand the sums to the meters of these trainings, and begin anew."""
        self._sum()
        if self._sums:
            losses = torch.cat([sums for sums, _ in self._sums])
            others = {name: torch.cat([own[name] for _, own in self._sums]) for name in self._sums[0][1]}
            for member in members:
                own = {name: values[:, member] for name, values in others.items()}
                self._meters[member].extend(losses[:, member], own, self._examples)
        self._sums, self._examples = [], 0
