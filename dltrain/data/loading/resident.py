"""The resident loader: decode once, keep all examples on the device, gather whole batches."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dltrain.data.augmentation.impl.windows import Windows, windows_for
from dltrain.data.loading.base import Loader
from dltrain.data.loading.pipeline import First, Moves
from dltrain.data.types import WHOLE, Batch, Loaded, Share, Source

CHUNK = 1024
TOGETHER = 16
"""Steps whose moves are drawn and worked out at once."""


class ResidentLoader(Loader):
    """All examples lie on the device as one tensor: images decoded (N, C, H, W) uint8, rows (N, D) float32."""

    def __init__(
        self, source: Source, layout: Any, *, batch_size: int, seed: int, device: torch.device,
        share: Share = WHOLE, first: First | None = None, balance: float = 0.0,
    ) -> None:  # fmt: skip
        """first: what training images undergo first; `does_first` says whether this loader takes it over.

        Raises ConfigError naming the files that cannot be read.
        """
        super().__init__(source, layout, batch_size=batch_size, seed=seed, device=device, share=share, balance=balance)
        self.inputs, self.extents = _resident(source, layout, self.device)
        self._moves = first if isinstance(first, Moves) else None
        self._windows = windows_for(self.inputs, self._moves) if self._moves is not None else None

    @property
    def does_first(self) -> bool:
        return self._windows is not None

    def batch(self, step: int) -> Batch:
        """The step's batch."""
        if self._windows is not None and self._moves is not None:
            return next(self._cut(step, 1, self._windows, self._moves))
        return self._gather(*self.examples_of(step))

    def _cut(self, start: int, count: int, windows: Windows, moves: Moves) -> Generator[Batch, None, None]:
        """The moved batches of `count` steps. What can be computed for all of them at once is: in a training step
        every small operation costs several times what it would cost alone."""
        examples = [self.examples_of(step) for step in range(start, start + count)]
        size = self.batch_size // self.share.count
        drawn = [moves.drawn(step, self.device, size) for step in range(start, start + count)]
        indices, epochs = (torch.cat(parts) for parts in zip(*examples, strict=True))
        shape_alone = self.inputs[:1].expand(len(indices), -1, -1, -1)
        whole = Batch(shape_alone, self.targets.index_select(0, indices), indices, epochs)
        motions = moves.motions(whole, [torch.cat(parts, -1) for parts in zip(*drawn, strict=True)])
        starts = windows.starts(indices, motions)
        each = zip(starts.chunk(count), whole.targets.chunk(count), examples, strict=True)
        for rows, targets, (own_indices, own_epochs) in each:
            yield Batch(windows.cut(rows), targets, own_indices, own_epochs)

    def _gather(self, indices: Tensor, epochs: Tensor) -> Batch:
        return Batch(
            inputs=self.inputs.index_select(0, indices),
            targets=self.targets.index_select(0, indices),
            indices=indices,
            epochs=epochs,
            extents=self.extents.index_select(0, indices) if self.extents is not None else None,
        )

    def batches(self, start_step: int = 0, *, aside: bool = False) -> Generator[Batch, None, None]:
        step = start_step
        while True:
            if self._windows is not None and self._moves is not None:
                yield from self._cut(step, TOGETHER, self._windows, self._moves)
                step += TOGETHER
            else:
                yield self.batch(step)
                step += 1

    def evaluation_batches(self, limit: int | None = None) -> Generator[tuple[Batch, int], None, None]:
        for indices, valid in self.evaluation_indices(limit):
            yield self._gather(indices.to(self.device), torch.zeros_like(indices, device=self.device)), valid

    def close(self) -> None:
        self.inputs, self._windows = self.inputs.new_empty(0), None


def _resident(source: Source, layout: Any, device: torch.device) -> Loaded:
    """All examples, on the device."""
    if device.type == "cpu" and (whole := source.whole(layout)) is not None:
        return whole
    count = len(source)
    inputs, extents = torch.empty(0), None
    for start in range(0, count, CHUNK):
        part = slice(start, min(start + CHUNK, count))
        loaded, sizes = source.load(np.arange(part.start, part.stop), layout)
        if not start:
            inputs = torch.empty(count, *loaded.shape[1:], dtype=loaded.dtype, device=device)
            extents = torch.empty(count, 2, dtype=torch.int64, device=device) if sizes is not None else None
        inputs[part] = loaded.to(device)
        if extents is not None and sizes is not None:
            extents[part] = sizes.to(device)
    return inputs, extents
