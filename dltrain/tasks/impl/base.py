"""A task as the training and the commands use it: losses, sums, and what outputs mean. Imports torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dltrain.tasks.impl.meters import Meter, Report


class BuiltTask(ABC):
    """A task for one data set, on one device. outputs (B, ...) are what the network puts out, targets (B, ...) what it
    should say; in training, `views` rows in a row are views of one example."""

    views: int = 1
    device: torch.device

    def scale(self, targets: Tensor, add: Callable[[Sequence[Tensor]], None]) -> Tensor | None:
        """What makes a mean over the whole batch, in all its parts on all devices, the weighted mean: 1 / the mean of
        the examples' weights. None where they have none. add: replaces tensors by their sums over processes."""
        return None

    @abstractmethod
    def losses(self, outputs: Any, targets: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Of what the network puts out in training: the outputs (B, ...) that are its answer, their losses (B,), which
        are reported, and the sums (B,) that training minimises. scale: of the whole batch that these are of."""

    @abstractmethod
    def reported_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The losses (B,) that are reported of a split that is measured."""

    @abstractmethod
    def meter(self) -> Meter:
        """Sums over training batches."""

    @abstractmethod
    def report(self) -> Report:
        """Sums over a split that is measured."""

    @abstractmethod
    def combine(self, outputs: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
        """One answer (B, ...), on the device of the first, from those to several views or of several networks. By
        default all weigh the same."""

    @abstractmethod
    def confidence(self, outputs: Tensor) -> Tensor:
        """How sure each answer is (B,): larger is surer."""

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """The names of what `answers` gives, nested values included, as the columns of a table. `path` is not free."""

    @abstractmethod
    def answers(self, outputs: Tensor) -> list[dict[str, Any]]:
        """What each output says, as plain values ready for JSON; values may be mappings of names to numbers."""

    def measure(self, report: Report, outputs: Tensor, targets: Tensor, valid: int) -> None:
        """Add a batch to a report, of which the first `valid` rows count."""
        report.update(outputs, targets, self.reported_losses(outputs, targets), valid)
