"""What a task keeps sums of: over the training batches of an epoch, and over a split that is measured. Imports torch.

No update waits for the device. `valid` is the number of leading rows that count, for padded batches.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

TOGETHER = 32
"""Training batches whose results are kept before they are summed."""


def wide_type(device: torch.device) -> torch.dtype:
    """float64, for sums that others depend on; Apple's GPUs have none."""
    return torch.float32 if device.type == "mps" else torch.float64


class Meter(ABC):
    """The mean loss of the training batches since the last `reset`, and what a task sums besides.

    An update only keeps the batch's results. They are summed, many batches at once but each by itself, so that
    what is read does not depend on when it is read; small operations in every step cost more than they compute.
    """

    kinds: Mapping[str, torch.dtype] = MappingProxyType({})
    """The names of the sums besides that of the losses, and the type of each."""
    shape: tuple[int, ...] = ()
    """Of each of these sums: () for a number, (n,) for one per number or label. Set before `__init__`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.reset()

    @abstractmethod
    def batch_sums(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The sums (m, *shape) by name of m equally large batches: outputs (m, B, ...), targets (m, B, ...)."""

    @abstractmethod
    def values(self, sums: Mapping[str, Any], examples: int) -> dict[str, float]:
        """The metrics besides the loss, from the sums over so many examples, 1 at least: numbers, or lists of them."""

    def reset(self) -> None:
        """Start again from nothing."""
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []
        self._losses = torch.zeros(0, dtype=wide_type(self._device), device=self._device)
        kinds = {name: wide_type(self._device) if kind.is_floating_point else kind for name, kind in self.kinds.items()}
        empty = (0, *self.shape)
        self._sums = {name: torch.zeros(empty, dtype=kind, device=self._device) for name, kind in kinds.items()}
        self.examples = 0
        """How many were added since then."""

    def kept(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What is kept of a batch (B, ...) until it is summed, each row by itself; by default all of it."""
        return outputs, targets

    def update(self, losses: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch: losses (B,), outputs (B, ...), targets (B, ...)."""
        outputs, targets = self.kept(outputs.detach(), targets)
        if self._pending and (self._pending[0][1].shape != outputs.shape or len(self._pending) == TOGETHER):
            self._sum()
        self._pending.append((losses.detach(), outputs, targets))
        self.examples += losses.shape[0]

    @torch.no_grad()
    def _sum(self) -> None:
        """The pending batches as one number each of every sum."""
        if not self._pending:
            return
        losses, outputs, targets = (torch.stack(values) for values in zip(*self._pending, strict=True))
        self._pending = []
        self._append(*self.sums_of(losses, outputs, targets))

    def sums_of(self, losses: Tensor, outputs: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The sums of m equally large batches, each by itself: of the losses (m,), and the others (m, *shape) by name.
        losses (m, B), outputs (m, B, ...), targets (m, B, ...)."""
        others = {name: values.to(self._sums[name].dtype) for name, values in self.batch_sums(outputs, targets).items()}
        return losses.sum(1, dtype=self._losses.dtype), others

    def _append(self, losses: Tensor, others: Mapping[str, Tensor]) -> None:
        self._losses = torch.cat([self._losses, losses])
        self._sums = {name: torch.cat([values, others[name]]) for name, values in self._sums.items()}

    def extend(self, losses: Tensor, others: Mapping[str, Tensor], examples: int) -> None:
        """Add batches of so many examples together, whose sums `sums_of` has given."""
        self._sum()
        self._append(losses, others)
        self.examples += examples

    def compute(self) -> dict[str, float]:
        """The metrics by name, all of 0 before the first update. Waits for the device."""
        self._sum()
        n = max(self.examples, 1)
        sums = {name: values.sum(0).tolist() for name, values in self._sums.items()}
        return {"loss": float(self._losses.sum()) / n, **self.values(sums, n)}

    @property
    def updates(self) -> int:
        """Updates since the reset."""
        return len(self._losses) + len(self._pending)

    def losses_after(self, updates: Sequence[int]) -> list[float]:
        """The mean loss of the first so many updates, for each number; all are equally large. Waits for the device."""
        self._sum()
        losses, examples = self._losses.cpu(), self.examples / max(len(self._losses), 1)
        return [float(losses[:count].sum()) / (count * examples) for count in updates]

    def first_non_finite(self) -> int | None:
        """Which update since the reset, from 0, first had a loss that is infinite or not a number."""
        self._sum()
        bad = (~torch.isfinite(self._losses)).nonzero()
        return int(bad[0]) if len(bad) else None

    def of_all(self, add: Callable[[Sequence[Tensor]], None]) -> Meter:
        """The same of all processes, each with as many updates. add: replaces tensors by their sums over processes."""
        self._sum()
        whole = copy.copy(self)
        whole.reset()
        whole._losses = self._losses.clone()
        whole._sums = {name: values.clone() for name, values in self._sums.items()}
        examples = torch.tensor(self.examples, device=self._device)
        add([whole._losses, *whole._sums.values(), examples])
        whole.examples = int(examples)
        return whole

    def state_dict(self) -> dict[str, Any]:
        """The sums, as tensors."""
        self._sum()
        return {"losses": self._losses, **self._sums, "examples": self.examples}

    def load_state_dict(self, state: Mapping[str, Any], *, empty: bool = False) -> None:
        """Continue from what `state_dict` returned. empty: with as many updates, but all of no examples. Raises
        ValueError for the sums of another task."""
        if missing := [name for name in self.kinds if name not in state]:
            raise ValueError(f"the sums of the epoch lack `{missing[0]}`")
        if wrong := [name for name in self.kinds if state[name].shape[1:] != self.shape]:
            raise ValueError(f"the sums `{wrong[0]}` of the epoch are {tuple(state[wrong[0]].shape[1:])} each")
        self.reset()
        self._losses, self.examples = state["losses"].to(self._losses), state["examples"]
        self._sums = {name: state[name].to(values) for name, values in self._sums.items()}
        if empty:
            self._losses, self.examples = torch.zeros_like(self._losses), 0
            self._sums = {name: torch.zeros_like(values) for name, values in self._sums.items()}


class Report(ABC):
    """What a split says about a model."""

    @abstractmethod
    def update(self, outputs: Tensor, targets: Tensor, losses: Tensor, valid: int | None = None) -> None:
        """Add a batch: outputs (B, ...), targets (B, ...), losses (B,)."""

    @property
    @abstractmethod
    def sums(self) -> list[Tensor]:
        """All that is summed up: the sums of several parts of a split, added, are those of the whole."""

    @property
    def rows(self) -> list[Tensor]:
        """What is kept of each example, one row of each tensor, for what no sums tell. By default nothing."""
        return []

    def join(self, rows: Sequence[Tensor]) -> None:  # noqa: B027
        """Hold the rows of all parts of a split instead of those of this part."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """The task's metrics by name. Raises ValueError when no example was measured."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """All that was measured, as plain values, ready for JSON; the metrics are among them, by name."""

    @abstractmethod
    def table(self) -> str:
        """The same as text for a terminal."""
