"""Sources of examples: images in memory, and images in files."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from dltrain.data.copies import contents
from dltrain.data.images.decoding import load_files, place_all
from dltrain.data.images.depth import depth_of
from dltrain.data.images.opening import size_of
from dltrain.data.loading.packs import packed
from dltrain.data.loading.resources import usable_cores
from dltrain.data.tables.reading import Table, joined_tables, values_at
from dltrain.data.types import Canvas, ImageFiles, Loaded

if TYPE_CHECKING:
    from typing_extensions import Self


class ArraySource:
    """Examples that are already an array. images: (N, C, H, W) uint8; targets: (N, ...). name: of the array."""

    words: ClassVar[str] = "images"
    in_memory = True
    files = None

    def __init__(self, images: np.ndarray, targets: np.ndarray, name: str = "images") -> None:
        self.images, self.targets, self.name = images, targets, name

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def channels(self) -> int:
        return int(self.images.shape[1])

    @property
    def native(self) -> tuple[int, int]:
        height, width = self.images.shape[2:]
        return height, width

    def keys(self) -> list[bytes]:
        """Their pixels."""
        return [image.tobytes() for image in self.images]

    def names(self) -> list[str]:
        return [f"{self.name}[{row}]" for row in range(len(self))]

    def where(self) -> dict[str, list[Any]]:
        return {}

    def groups(self) -> None:
        return None

    def contents(self, *, look: bool) -> np.ndarray:
        return contents.of_images(self.images, look)

    def bytes_on(self, canvas: Canvas) -> int:
        return len(self) * self.channels * canvas.height * canvas.width

    def lies_on(self, canvas: Canvas) -> bool:
        return self.native == (canvas.height, canvas.width)

    def load(self, indices: np.ndarray, canvas: Canvas) -> Loaded:
        return _placed(self.images[indices], canvas)

    def whole(self, canvas: Canvas) -> Loaded:
        """They share the array's memory when none must be resized."""
        return _placed(self.images, canvas)

    def unlike(self, canvas: Canvas) -> list[str]:
        return []

    def pictures(self, indices: np.ndarray, side: int) -> list[np.ndarray]:
        placed, (height, width) = place_all(self.images[indices], Canvas(side, side, "fit"))
        shown: np.ndarray = placed[:, :, :height, :width].permute(0, 2, 3, 1).numpy()
        return list(shown)

    def facts(self, indices: np.ndarray) -> dict[str, Any]:
        return {}

    def subset(self, indices: np.ndarray) -> ArraySource:
        return ArraySource(self.images[indices], self.targets[indices], self.name)

    def with_targets(self, targets: np.ndarray) -> ArraySource:
        return ArraySource(self.images, targets, self.name)

    def joined(self, others: Sequence[Self]) -> ArraySource:
        parts = [self, *others]
        images = np.concatenate([part.images for part in parts])
        return ArraySource(images, np.concatenate([part.targets for part in parts]), self.name)


class FileSource:
    """Examples that are image files. targets: (N, ...). group: (N,) words, see `Source.groups`. beside: the other
    columns of the table that names them, if one does."""

    words: ClassVar[str] = "images"
    in_memory = False
    native = None

    def __init__(
        self, files: ImageFiles, targets: np.ndarray, group: np.ndarray | None = None, beside: Table | None = None
    ) -> None:
        self.files, self.targets, self.group, self.beside = files, targets, group, beside

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def channels(self) -> int:
        return self.files.channels

    def keys(self) -> list[bytes]:
        """Their paths relative to the data set's folder."""
        return [os.fsencode(path) for path in self.files.paths]

    def names(self) -> list[str]:
        return self.files.full

    def where(self) -> dict[str, list[Any]]:
        return {"path": self.files.full}

    def groups(self) -> np.ndarray | None:
        return self.group

    def contents(self, *, look: bool) -> np.ndarray:
        return contents.of_files(self.files, look=look)

    def bytes_on(self, canvas: Canvas) -> int:
        return len(self) * self.channels * canvas.height * canvas.width

    def lies_on(self, canvas: Canvas) -> bool:
        return False

    def load(self, indices: np.ndarray, canvas: Canvas) -> Loaded:
        """Raises ConfigError naming the files that cannot be read, or the cache that cannot be written."""
        if self.files.cache is not None:
            images, extents = packed(self.files, canvas).read(torch.from_numpy(indices))
        else:
            files = self.files.at(indices)
            images, extents = load_files(files.root, files.paths, files.channels, canvas, usable_cores())
        return images, extents if canvas.rule == "fit" else None

    def whole(self, canvas: Canvas) -> Loaded | None:
        """Of a pack the operating system reads what is wanted, and keeps it."""
        if self.files.cache is None:
            return None
        pack = packed(self.files, canvas)
        return pack.images, pack.extents if canvas.rule == "fit" else None

    def unlike(self, canvas: Canvas) -> list[str]:
        return depth_of(self.files).unlike(canvas.white)

    def pictures(self, indices: np.ndarray, side: int) -> list[np.ndarray]:
        files = self.files.at(indices)
        canvas = Canvas(side, side, "fit", white=depth_of(files).white, max_pixels=files.max_pixels)
        images, extents = load_files(files.root, files.paths, files.channels, canvas, usable_cores())
        return [
            image[:, :h, :w].permute(1, 2, 0).numpy() for image, (h, w) in zip(images, extents.tolist(), strict=True)
        ]

    def facts(self, indices: np.ndarray) -> dict[str, Any]:
        """`image size`: the root of height times width, in pixels, where it varies; and the columns of a table."""
        full = self.files.full
        sizes = np.array([math.prod(size_of(full[index])) ** 0.5 for index in indices.tolist()])
        own = {"image size": sizes} if len(np.unique(sizes)) > 1 else {}
        return {**own, **values_at(self.beside, indices)}

    def subset(self, indices: np.ndarray) -> FileSource:
        group = None if self.group is None else self.group[indices]
        beside = None if self.beside is None else self.beside.at(indices)
        return FileSource(self.files.at(indices), self.targets[indices], group, beside)

    def with_targets(self, targets: np.ndarray) -> FileSource:
        return FileSource(self.files, targets, self.group, self.beside)

    def joined(self, others: Sequence[Self]) -> FileSource:
        parts = [self, *others]
        paths = [path for part in parts for path in part.files.paths]
        beside = joined_tables([part.beside for part in parts])
        return FileSource(self.files.having(paths), np.concatenate([part.targets for part in parts]), beside=beside)


def _placed(images: np.ndarray, canvas: Canvas) -> Loaded:
    placed, extent = place_all(images, canvas)
    return placed, torch.tensor([extent]).repeat(len(placed), 1) if canvas.rule == "fit" else None
