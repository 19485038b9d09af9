"""Examples: in memory or in files, as a data set was read, and as it is divided into splits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltrain.data.types import MAX_PIXELS

if TYPE_CHECKING:
    import numpy as np


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
        self.packs: dict[Any, Any] = {}
        """Those that are open, by their canvas."""

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
class RawDataset:
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
    """As in `RawDataset`."""

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
