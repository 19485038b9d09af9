"""What every loader is: a source -> batches on the device, each batch a function of its step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dltrain.data.loading.balance import Balanced
from dltrain.data.loading.order import Order, evaluation_indices
from dltrain.data.targets import as_tensor
from dltrain.data.types import WHOLE, Batch, Share, Source


class Loader(ABC):
    """Batches of a split. Batch `step` is a function of (source, layout, batch_size, seed, step).

    Where several processes train together, each gets its share of every batch; `batch_size` is the whole one's.
    """

    def __init__(
        self, source: Source, layout: Any, *, batch_size: int, seed: int, device: torch.device, share: Share = WHOLE,
        balance: float = 0.0,
    ) -> None:  # fmt: skip
        """balance: how far training draws the classes equally often (see `draws_of`)."""
        self.source, self.layout, self.batch_size, self.seed = source, layout, batch_size, seed
        self.device, self.share, self.balance = torch.device(device), share, balance
        self.targets = as_tensor(source.targets).to(self.device)
        self._epoch: tuple[int, Tensor, Tensor] | None = None

    @cached_property
    def order(self) -> Order:
        """The order of training. Raises ConfigError when a batch is larger than the split."""
        balanced = Balanced(self.targets.cpu(), self.balance, self.seed) if self.balance else None
        return Order(len(self.source), self.batch_size, self.seed, balanced)

    @property
    def steps_per_epoch(self) -> int:
        """ceil(N / batch_size)."""
        return self.order.steps_per_epoch

    def examples_of(self, step: int) -> tuple[Tensor, Tensor]:
        """Indices of the step's examples, and the epoch that each belongs to: (B,) int64, on the device."""
        epoch, number = divmod(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            indices, epochs = self.order.epoch(epoch)
            self._epoch = epoch, indices.to(self.device), epochs.to(self.device)
        batch = slice(number * self.batch_size, (number + 1) * self.batch_size)
        return self.share.of(self._epoch[1][batch]), self.share.of(self._epoch[2][batch])

    def evaluation_indices(self, limit: int | None) -> list[tuple[Tensor, int]]:
        """Indices (B,) of each batch of an evaluation, on the CPU, and how many of them count."""
        classes = (
            self.targets if self.targets.dtype == torch.int64 else torch.zeros(len(self.source), dtype=torch.int64)
        )
        whole = evaluation_indices(classes.cpu(), self.batch_size, limit)
        return [(self.share.of(indices), self.share.valid(valid, self.batch_size)) for indices, valid in whole]

    @property
    def does_first(self) -> bool:
        """Whether training batches come with the first part of the pipeline done."""
        return False

    @property
    def decodes_aside(self) -> bool:
        """Whether other processes decode images, on the same cores, while the batches are used."""
        return False

    @abstractmethod
    def batches(self, start_step: int = 0, *, aside: bool = False) -> Generator[Batch, None, None]:
        """The batches of step start_step, start_step + 1, ... without end. aside: while others are still read."""

    @abstractmethod
    def evaluation_batches(self, limit: int | None = None) -> Generator[tuple[Batch, int], None, None]:
        """Every example once, in the order of the split, and how many of each batch count: all batches have one
        size, the last one is completed by repeating.

        limit: of batches. Where they do not hold the whole split, it is a sample with all classes in proportion, which
        depends on the labels alone.
        """

    @abstractmethod
    def close(self) -> None:
        """Free memory and processes."""
