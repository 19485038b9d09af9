"""What flows between the parts of the data path: image shapes, sources of examples, batches, draws."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from dltrain.data.canvas import Canvas
    from dltrain.data.packs import Pack

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


def mix(*numbers: int | str) -> int:
    """Numbers and words hashed to a 32-bit seed: the one way in which a seed is ever derived."""
    text = "/".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little")


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


class Draws:
    """The random numbers of one step: a function of (seed, step), drawn per position in the batch.

    Nothing here synchronises with the device. `host` is for choices that steer Python (which
    operations run), the other methods return tensors on the device.

    Where a batch is shared among processes, the first dimension that is as long as this process's part has
    `examples` is that of examples: what is drawn there is the part that one process alone would have drawn.
    """

    def __init__(
        self, seed: int, step: int, device: torch.device, examples: int = 0, share: Share = WHOLE, *,
        purpose: str = "augmentation",
    ) -> None:  # fmt: skip
        import torch

        self.device, self.examples, self.share = device, examples, share
        self.generator = torch.Generator(device).manual_seed(mix(seed, step, purpose))
        self._place = seed, step

    @cached_property
    def host(self) -> Draws:
        import torch

        return Draws(*self._place, torch.device("cpu"), self.examples, self.share, purpose="host")

    def uniform(self, *size: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 in [low, high)."""
        import torch

        drawn = self._part(size, lambda whole: torch.rand(whole, generator=self.generator, device=self.device))
        return drawn if (low, high) == (0.0, 1.0) else drawn * (high - low) + low

    def normal(self, *size: int) -> Tensor:
        """Standard normal float32."""
        import torch

        return self._part(size, lambda whole: torch.randn(whole, generator=self.generator, device=self.device))

    def integers(self, high: int, *size: int) -> Tensor:
        """int64 in [0, high)."""
        import torch

        return self._part(size, lambda whole: torch.randint(high, whole, generator=self.generator, device=self.device))

    def chance(self, probability: float, *size: int) -> Tensor:
        """bool, true with the given probability."""
        return self.uniform(*size) < probability

    def _part(self, size: tuple[int, ...], draw: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
        if self.share.count == 1 or self.examples not in size:
            return draw(size)
        dim = size.index(self.examples)
        whole = draw((*size[:dim], size[dim] * self.share.count, *size[dim + 1 :]))
        return self.share.of(whole, dim)


class ArraySource:
    """Examples that are already an array. images: (N, C, H, W) uint8; labels: (N,) int64. name: of the array."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, name: str = "images") -> None:
        self.images, self.labels, self.name = images, labels, name

    def __len__(self) -> int:
        return len(self.labels)

    def keys(self) -> list[bytes]:
        """What identifies each example: its pixels."""
        return [image.tobytes() for image in self.images]

    def names(self) -> list[str]:
        """What each example is called in messages."""
        return [f"{self.name}[{row}]" for row in range(len(self))]

    def subset(self, indices: np.ndarray) -> ArraySource:
        """The examples at `indices`, in that order."""
        return ArraySource(self.images[indices], self.labels[indices], self.name)


class FileSource:
    """Examples that are image files. paths are relative to root; labels: (N,) int64.

    cache: the folder for packs of decoded images, or None to decode files whenever they are wanted. max_pixels: larger
    files are refused.
    """

    def __init__(
        self, root: str, paths: Sequence[str], labels: np.ndarray, channels: int = 3, cache: Path | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:  # fmt: skip
        self.root, self.paths, self.labels, self.channels, self.cache = root, list(paths), labels, channels, cache
        self.max_pixels = max_pixels
        self.packs: dict[Canvas, Pack] = {}
        """Those that are open."""

    def __len__(self) -> int:
        return len(self.labels)

    def keys(self) -> list[bytes]:
        """What identifies each example: its path relative to the data set's folder."""
        return [os.fsencode(path) for path in self.paths]

    def names(self) -> list[str]:
        """What each example is called in messages: its path."""
        return [os.path.join(self.root, path) for path in self.paths]  # noqa: PTH118

    def subset(self, indices: np.ndarray) -> FileSource:
        """The examples at `indices`, in that order."""
        paths = [self.paths[i] for i in indices]
        return FileSource(self.root, paths, self.labels[indices], self.channels, self.cache, self.max_pixels)


Source = ArraySource | FileSource


@dataclass(frozen=True)
class Parts:
    """A data set as it was read. Where it brings no test or validation split, `train` holds those examples too.

    test_share: what the test split takes of `train` where none is given. notes: what was found on the way.
    """

    train: Source
    validation: Source | None
    test: Source | None
    classes: list[str]
    test_share: float = 0.0
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    """Files that cannot be read and were left out, each with what is wrong with it."""

    def given(self) -> dict[str, Source]:
        """The splits that the data set brings, by their names."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: source for name, source in parts.items() if source is not None}


@dataclass(frozen=True)
class Splits:
    """A data set, divided. `test` and `validation` are None where there is none. notes: what was found on the way."""

    train: Source
    validation: Source | None
    test: Source | None
    classes: list[str]
    fingerprint: str
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    """As in `Parts`."""

    @property
    def remarks(self) -> list[str]:
        """All that there is to say of the data before training: the skipped files, and the notes."""
        return [*self.told_of_skipped(), *self.notes]

    def told_of_skipped(self, most: int = 50) -> list[str]:
        """Notes on the files that were skipped: how many, and which, of many the first `most`."""
        if not self.skipped:
            return []
        left = sum(len(part) for part in (self.train, self.validation, self.test) if part is not None)
        count = f"{len(self.skipped):,} files are skipped, since they cannot be read (`on_error: skip`)"
        more = [f"... and {len(self.skipped) - most:,} more, see environment.json"] if len(self.skipped) > most else []
        return [f"warning: {count}; {left:,} are left", *(f"skipped: {text}" for text in self.skipped[:most]), *more]
