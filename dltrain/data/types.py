"""What flows between the parts of the data path: image shapes, batches, shares of them. Imports no other part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
MAX_PIXELS = 178_956_970
"""Pixels above which Pillow takes an image for a decompression bomb: as RGB, half a gigabyte."""
Copies = Literal["together", "drop", "allow"]
"""What is done with copies of images."""


@dataclass(frozen=True)
class ImageShape:
    """Channels, height and width of one image."""

    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.channels}x{self.height}x{self.width}"


@dataclass(frozen=True)
class Batch:
    """A training batch on the device, as it passes from the loader through the augmentations.

    images: (B, C, H, W), values 0..255 as uint8 or float32; after scaling, float32.
    labels: (B,) int64 class indices. targets: (B, K) float32 rows summing to 1 once a mixing
    augmentation has run, else None.
    indices: (B,) int64, each example's place in its split. epochs: (B,) int64, the epoch that each
    example belongs to (the last batch of an epoch borrows its missing examples from the next).
    extents: (B, 2) int64 height and width of the valid top-left part of each image, or None when
    images fill their canvas.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    epochs: Tensor
    extents: Tensor | None = None
    targets: Tensor | None = None

    def with_(self, **changes: Any) -> Batch:
        """A copy with some fields replaced."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Share:
    """The part of every batch that is this process's: of `count` equal parts, in order, the one at `index`."""

    index: int = 0
    count: int = 1

    def of(self, batch: Tensor, dim: int = 0) -> Tensor:
        """This process's part of a batch (..., B, ...), which `count` must divide."""
        return batch if self.count == 1 else batch.chunk(self.count, dim)[self.index]

    def valid(self, rows: int, batch_size: int) -> int:
        """Of the first `rows` of a batch, which count, how many are this process's."""
        part = batch_size // self.count
        return min(max(rows - self.index * part, 0), part)


WHOLE = Share()
