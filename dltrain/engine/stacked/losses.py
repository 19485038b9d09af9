"""The losses of what several networks put out for the same examples. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dltrain.engine.stacked.network import several
from dltrain.tasks.impl.base import BuiltTask


class StackedLosses:
    """The losses of K tasks that differ in nothing but numbers of their loss.

    A loss is of each example by itself: those of tasks with equal losses are computed at once, as of one long batch.
    """

    def __init__(self, tasks: Sequence[BuiltTask]) -> None:
        self._groups: list[tuple[BuiltTask, list[int]]] = []
        for member, task in enumerate(tasks):
            alike = (members for other, members in self._groups if _same(task, other))
            members = next(alike, None)
            if members is None:
                self._groups.append((task, [member]))
            else:
                members.append(member)
        places = torch.tensor([member for _, members in self._groups for member in members])
        self._back = places.argsort().tolist()

    def scales(self, targets: Tensor) -> list[Tensor | None]:
        """`BuiltTask.scale` of the targets of a whole batch (B, ...), for each group."""
        return [task.scale(targets, lambda _: None) for task, _ in self._groups]

    def of(self, outputs: Any, targets: Tensor, scales: Sequence[Tensor | None]) -> tuple[Tensor, Tensor, Tensor]:
        """`BuiltTask.losses` of each task: the answers (K, B, ...), their losses (K, B), and what is minimised (K, B).

        outputs: (K, B, ...), of auxiliary heads too. targets: (B, ...).
        """
        found = []
        for (task, members), scale in zip(self._groups, scales, strict=True):
            whole = len(self._groups) == 1
            own = [output if whole else output[members] for output in several(outputs)]
            rows = [output.flatten(0, 1) for output in own]
            repeated = targets.expand(len(members), *targets.shape).flatten(0, 1)
            given = rows[0] if isinstance(outputs, Tensor) else tuple(rows)
            shape = len(members), len(targets)
            found.append([each.view(*shape, *each.shape[1:]) for each in task.losses(given, repeated, scale)])
        if len(found) == 1:
            return found[0][0], found[0][1], found[0][2]
        logits, losses, totals = (torch.cat(parts)[self._back] for parts in zip(*found, strict=True))
        return logits, losses, totals


def _same(task: BuiltTask, other: BuiltTask) -> bool:
    """Whether `losses` of both are the same function."""
    return type(task) is type(other) and task.minimises is not None and task.minimises == other.minimises
