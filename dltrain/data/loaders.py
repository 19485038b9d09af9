"""Loaders: a source -> batches on the device. Resident or streaming, the batches are the same bit for bit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dltrain.data.base import ArraySource, Batch, Source
from dltrain.data.canvas import Canvas, load_source, place_all
from dltrain.data.order import Order, evaluation_indices
from dltrain.data.resources import choose_loader, choose_workers, usable_cores

__all__ = ["Loader", "ResidentLoader", "choose_loader", "choose_workers", "make_loader"]

Progress = Callable[[int, int], None]
"""Called with how many images are decoded, and of how many."""
CHUNK = 1024


class Loader(ABC):
    """Batches of a split. Batch `step` is a function of (source, canvas, batch_size, seed, step)."""

    def __init__(self, source: Source, canvas: Canvas, *, batch_size: int, seed: int, device: torch.device) -> None:
        self.source, self.canvas, self.batch_size, self.seed = source, canvas, batch_size, seed
        self.device = torch.device(device)
        self.labels = torch.from_numpy(np.array(source.labels, dtype=np.int64)).to(self.device)
        self._epoch: tuple[int, Tensor, Tensor] | None = None

    @cached_property
    def order(self) -> Order:
        """The order of training. Raises ConfigError when a batch is larger than the split."""
        return Order(len(self.source), self.batch_size, self.seed)

    @property
    def steps_per_epoch(self) -> int:
        """ceil(N / batch_size)."""
        return self.order.steps_per_epoch

    def examples_of(self, step: int) -> tuple[Tensor, Tensor]:
        """Indices of the step's examples, and the epoch that each belongs to: (batch_size,) int64, on the device."""
        epoch, number = divmod(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            indices, epochs = self.order.epoch(epoch)
            self._epoch = epoch, indices.to(self.device), epochs.to(self.device)
        start = number * self.batch_size
        return self._epoch[1][start : start + self.batch_size], self._epoch[2][start : start + self.batch_size]

    @abstractmethod
    def batches(self, start_step: int = 0) -> Generator[Batch, None, None]:
        """The batches of step start_step, start_step + 1, ... without end."""

    @abstractmethod
    def evaluation_batches(self) -> Generator[tuple[Batch, int], None, None]:
        """Every example once, in the order of the split, and how many of each batch count: all batches have
        batch_size examples, the last one is completed by repeating."""

    @abstractmethod
    def close(self) -> None:
        """Free memory and processes."""


class ResidentLoader(Loader):
    """All images lie decoded on the device, as one uint8 tensor (N, C, H, W)."""

    def __init__(
        self, source: Source, canvas: Canvas, *, batch_size: int, seed: int, device: torch.device,
        on_progress: Progress | None = None,
    ) -> None:  # fmt: skip
        """Raises ConfigError naming the files that cannot be read."""
        super().__init__(source, canvas, batch_size=batch_size, seed=seed, device=device)
        self.images, self.extents = _resident(source, canvas, self.device, on_progress)

    def batch(self, step: int) -> Batch:
        """The step's batch."""
        return self._gather(*self.examples_of(step))

    def _gather(self, indices: Tensor, epochs: Tensor) -> Batch:
        return Batch(
            images=self.images.index_select(0, indices),
            labels=self.labels.index_select(0, indices),
            indices=indices,
            epochs=epochs,
            extents=self.extents.index_select(0, indices) if self.extents is not None else None,
        )

    def batches(self, start_step: int = 0) -> Generator[Batch, None, None]:
        step = start_step
        while True:
            yield self.batch(step)
            step += 1

    def evaluation_batches(self) -> Generator[tuple[Batch, int], None, None]:
        for indices, valid in evaluation_indices(len(self.source), self.batch_size):
            yield self._gather(indices.to(self.device), torch.zeros_like(indices, device=self.device)), valid

    def close(self) -> None:
        self.images = self.images.new_empty(0)


def _resident(
    source: Source, canvas: Canvas, device: torch.device, on_progress: Progress | None
) -> tuple[Tensor, Tensor | None]:
    """(N, C, H, W) uint8 and, on a fit canvas, (N, 2) int64 extents."""
    if isinstance(source, ArraySource):
        placed, extent = place_all(source, canvas)
        extents = torch.tensor([extent]).repeat(len(source), 1)
        return placed.to(device), extents.to(device) if canvas.rule == "fit" else None
    count = len(source)
    images = torch.empty(count, source.channels, canvas.height, canvas.width, dtype=torch.uint8, device=device)
    extents = torch.empty(count, 2, dtype=torch.int64, device=device)
    for start in range(0, count, CHUNK):
        part = np.arange(start, min(start + CHUNK, count))
        loaded, sizes = load_source(source, part, canvas, usable_cores())
        images[start : start + len(part)], extents[start : start + len(part)] = loaded, sizes
        if on_progress is not None:
            on_progress(start + len(part), count)
    return images, extents if canvas.rule == "fit" else None


def make_loader(
    kind: Literal["resident", "streaming"], source: Source, canvas: Canvas, *, batch_size: int, seed: int,
    device: torch.device, workers: int = 0, on_progress: Progress | None = None,
) -> Loader:  # fmt: skip
    """The loader of the chosen kind. Raises ConfigError naming files that the resident one cannot read."""
    if kind == "resident":
        return ResidentLoader(source, canvas, batch_size=batch_size, seed=seed, device=device, on_progress=on_progress)
    from dltrain.data.streaming import StreamingLoader

    return StreamingLoader(source, canvas, batch_size=batch_size, seed=seed, device=device, workers=workers)
