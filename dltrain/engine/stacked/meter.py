"""The metrics of several trainings over the same batches, summed together. Imports torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from dltrain.tasks.impl.meters import TOGETHER, Meter


class StackedMeter:
    """What the meters of K trainings would have summed since the last `give`.

    Results are kept until they are about as many batches as one meter keeps, and summed by one of the meters, each
    batch of each training by itself.
    """

    def __init__(self, meters: Sequence[Meter]) -> None:
        self._meters, self._most = meters, max(TOGETHER // len(meters), 1)
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []
        self._sums: list[tuple[Tensor, dict[str, Tensor]]] = []
        self._examples = 0

    def update(self, losses: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch: losses (K, B), outputs (K, B, ...), targets (B, ...), which all have in common."""
        if self._pending and (self._pending[0][1].shape != outputs.shape or len(self._pending) == self._most):
            self._sum()
        self._pending.append((losses.detach(), outputs.detach(), targets))
        self._examples += losses.shape[1]

    @torch.no_grad()
    def _sum(self) -> None:
        if not self._pending:
            return
        count, members = len(self._pending), len(self._meters)
        losses, outputs, targets = (torch.stack(values) for values in zip(*self._pending, strict=True))
        self._pending = []
        targets = targets[:, None].expand(count, members, *targets.shape[1:])
        summed, others = self._meters[0].sums_of(losses.flatten(0, 1), outputs.flatten(0, 1), targets.flatten(0, 1))
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
