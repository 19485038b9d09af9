"""What flows between the parts of the data path: sources of examples, splits, canvases, batches, shares of them.

Imports no other part of the data path but what stands for a split that nobody may look into.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias, cast

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.sealed import Sealed
from dltrain.errors import Note

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor
    from typing_extensions import Self

    from dltrain.data.targets import TargetSpec

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
MAX_PIXELS = 178_956_970
"""Pixels above which Pillow takes an image for a decompression bomb: as RGB, half a gigabyte."""
Copies = Literal["together", "drop", "allow"]
"""What is done with copies of images."""
Loaded: TypeAlias = "tuple[Tensor, Tensor | None]"
"""Examples in a layout: images (n, C, H, W) uint8, and on a fit canvas (n, 2) int64, the height and width that each
fills; or rows (n, D) float32."""


class InputSpec(Protocol):
    """What a network takes; its text names it in messages."""

    words: ClassVar[str]
    """What examples are called in messages."""
    one: ClassVar[str]
    """What one of them is called, in short: `image`, of which `images` are several."""

    @property
    def size(self) -> int:
        """How many numbers an example has."""

    def example(self, count: int, device: torch.device | str | None = None) -> Tensor:
        """So many examples of zeros, float32; by default on torch's own default device."""


@dataclass(frozen=True)
class ImageShape:
    """Channels, height and width of one image."""

    words: ClassVar[str] = "images"
    one: ClassVar[str] = "image"
    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.channels}x{self.height}x{self.width}"

    @property
    def size(self) -> int:
        return self.channels * self.height * self.width

    def example(self, count: int, device: torch.device | str | None = None) -> Tensor:
        """(count, C, H, W)."""
        import torch

        return torch.zeros(count, self.channels, self.height, self.width, device=device)


@dataclass(frozen=True)
class Vector:
    """So many numbers, as a row of a table has them."""

    words: ClassVar[str] = "rows of numbers"
    one: ClassVar[str] = "row"
    size: int

    def __str__(self) -> str:
        return f"vectors of {self.size:,} numbers"

    def example(self, count: int, device: torch.device | str | None = None) -> Tensor:
        """(count, size)."""
        import torch

        return torch.zeros(count, self.size, device=device)


def require_images(inputs: InputSpec, who: str) -> ImageShape:
    """The inputs, which must be images. who: takes them, in the message. Raises ConfigError when they are not."""
    if not isinstance(inputs, ImageShape):
        raise ConfigError([Diagnostic(f"{who} takes images, and the data gives {inputs}")])
    return inputs


@dataclass(frozen=True)
class Canvas:
    """The fixed size of a split's images in pixels, and how an image gets there.

    rule: `exact`, the images have that size (one that has not, such as a file given to `predict`, is
    treated as by `crop`); `crop`, the image is resized until it covers the canvas divided by the share
    `crop`, then cut at its centre (torchvision's evaluation rule: for a square canvas the shorter side
    becomes size / crop); `fit`, the whole image, shrunk if it is larger than the canvas, lies in its
    top-left corner, and the rest is 0.
    white: the value that becomes 255 of grey files of more than 8 bits; see `depth`. max_pixels: larger files are
    refused.
    """

    height: int
    width: int
    rule: Literal["exact", "crop", "fit"] = "exact"
    interpolation: Interpolation = "bilinear"
    crop: float = 1.0
    white: int | None = None
    max_pixels: int = MAX_PIXELS

    def __str__(self) -> str:
        size = f"{self.height}x{self.width}"
        if self.rule == "exact":
            return size
        if self.rule == "fit":
            return f"whole, shrunk into {size}, {self.interpolation}"
        share = f"the central {self.crop:.3g} of the image, " if self.crop < 1 else ""
        return f"{share}resized and cut to {size}, {self.interpolation}"


@dataclass(frozen=True)
class Batch:
    """A training batch on the device, as it passes from the loader through the augmentations.

    inputs: of images (B, C, H, W), values 0..255 as uint8 or float32; after scaling, float32. Of rows (B, D) float32.
    targets: (B,) int64 class indices, or (B, n) float32: what else is to be learned, or the shares of classes once a
    mixing augmentation has run.
    indices: (B,) int64, each example's place in its split. epochs: (B,) int64, the epoch that each
    example belongs to (the last batch of an epoch borrows its missing examples from the next).
    extents: (B, 2) int64 height and width of the valid top-left part of each image, or None when
    images fill their canvas.
    """

    inputs: Tensor
    targets: Tensor
    indices: Tensor
    epochs: Tensor
    extents: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs)

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


# -- where examples come from


@dataclass(frozen=True)
class ImageFiles:
    """Image files below a folder. paths: relative to root. channels: 1, all as grey; 3, all as RGB.

    cache: the folder for packs of decoded images, or None to decode files whenever they are wanted. max_pixels: larger
    files are refused.
    """

    root: str
    paths: list[str]
    channels: int = 3
    cache: Path | None = None
    max_pixels: int = MAX_PIXELS
    packs: dict[Canvas, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Those that are open."""

    def __len__(self) -> int:
        return len(self.paths)

    def at(self, indices: np.ndarray) -> ImageFiles:
        """The files at `indices`, in that order."""
        return self.having([self.paths[i] for i in indices])

    def having(self, paths: list[str]) -> ImageFiles:
        """Other files below the same folder."""
        return ImageFiles(self.root, paths, self.channels, self.cache, self.max_pixels)

    @property
    def full(self) -> list[str]:
        """The paths with the folder."""
        return [os.path.join(self.root, path) for path in self.paths]  # noqa: PTH118


class Source(Protocol):
    """Examples: where they lie, and how they are had. targets: (N, ...), see `TargetSpec`.

    A layout is what gives examples of a kind a fixed size: images a `Canvas`, rows of a table an `Encoding`.
    """

    targets: np.ndarray
    words: ClassVar[str]
    """What the examples are called in messages, as `InputSpec.words`."""

    def __len__(self) -> int: ...

    @property
    def in_memory(self) -> bool:
        """Whether nothing need be read for an example."""

    @property
    def files(self) -> ImageFiles | None:
        """The image files that the examples are; None where they are no files."""

    def keys(self) -> list[bytes]:
        """What identifies each example."""

    def names(self) -> list[str]:
        """What each example is called in messages."""

    def where(self) -> dict[str, list[Any]]:
        """Where each example lies, as columns of a table: `path` of a file, and `row` in it; nothing of what is known
        by its place alone."""

    def groups(self) -> np.ndarray | None:
        """(N,) words; examples of one word stay in one split. None where each stands for itself."""

    def contents(self, *, look: bool) -> np.ndarray:
        """(N,) `copies.contents.CONTENT`: what each example holds.

        look: whether pictures are decoded, and sketched if they are large enough. Raises ConfigError naming the files
        that are empty or cannot be read.
        """

    def bytes_on(self, layout: Any) -> int:
        """What all examples take in a layout."""

    def lies_on(self, layout: Any) -> bool:
        """Whether all examples lie in memory as they are in a layout."""

    def load(self, indices: np.ndarray, layout: Any) -> Loaded:
        """The examples at `indices` in a layout. Raises ConfigError naming the files that cannot be read."""

    def whole(self, layout: Any) -> Loaded | None:
        """All examples in a layout, where main memory or a mapped file holds them together; else None."""

    def unlike(self, layout: Any) -> list[str]:
        """What a network should know that was trained on examples in a layout, and gets these; an entry each."""

    def pictures(self, indices: np.ndarray, side: int) -> list[np.ndarray] | None:
        """The examples at `indices` as a person sees them: (h, w, C) uint8 each, whole, at most `side` high and wide.
        None where they are no images. Raises ConfigError like `load`."""

    def facts(self, indices: np.ndarray) -> dict[str, Any]:
        """What else is known of them, by name: numbers or words (n,). Of image files a size that varies; of both
        the columns of a table."""

    def subset(self, indices: np.ndarray) -> Source:
        """The examples at `indices`, in that order."""

    def with_targets(self, targets: np.ndarray) -> Source:
        """The same examples with other targets."""

    def joined(self, others: Sequence[Self]) -> Source:
        """These examples, and then those of other sources of the same kind and place."""


class ImageSource(Source, Protocol):
    """Examples that are images."""

    @property
    def channels(self) -> int:
        """Of every image."""

    @property
    def native(self) -> tuple[int, int] | None:
        """Height and width of every image; None where each has its own."""


class Preprocessing(Protocol):
    """What becomes of examples before a network sees them: a layout gives them a fixed size, then they are augmented,
    and scaled on the device. Decided once, stored in the checkpoint, used by every command."""

    @property
    def shape(self) -> InputSpec:
        """What the network takes."""

    @property
    def train(self) -> Any:
        """The layout of training examples."""

    @property
    def evaluation(self) -> Any:
        """The layout of all others."""

    @property
    def scaling(self) -> Any:
        """What is done on the device: a `loading.scaling.Scaling`."""

    @property
    def remarks(self) -> list[Note]:
        """What was found about the examples when this was decided; not stored."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values and tensors, for the checkpoint."""


@dataclass(frozen=True)
class RawDataset:
    """A data set as it was read. Where it brings no test or validation split, `train` holds those examples too.

    test_share: what the test split takes of `train` where none is given. notes: what was found on the way.
    """

    train: Source
    validation: Source | None
    test: Source | None
    target: TargetSpec
    test_share: float = 0.0
    notes: tuple[Note, ...] = ()
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
    target: TargetSpec
    fingerprint: str
    notes: tuple[Note, ...] = ()
    skipped: tuple[str, ...] = ()
    """As in `RawDataset`."""

    @property
    def classes(self) -> list[str]:
        """Their names, for classification."""
        return list(self.target.names)

    def sealed(self) -> Splits:
        """The same, with a test split that nobody can look into."""
        return self if self.test is None else replace(self, test=cast(Source, Sealed(len(self.test))))

    @property
    def remarks(self) -> list[Note]:
        """All that there is to say of the data before training: the skipped files, and the notes."""
        return [*self.told_of_skipped(), *self.notes]

    def told_of_skipped(self, most: int = 50) -> list[Note]:
        """Notes on the files that were skipped: how many, and which, of many the first `most`."""
        if not self.skipped:
            return []
        left = sum(len(part) for part in (self.train, self.validation, self.test) if part is not None)
        count = f"{len(self.skipped):,} files are skipped, since they cannot be read (`on_error: skip`)"
        lines = [f"skipped: {text}" for text in self.skipped[:most]]
        if len(self.skipped) > most:
            lines.append(f"... and {len(self.skipped) - most:,} more, see environment.json")
        warning = Note("warning", "skipped", f"{count}; {left:,} are left")
        return [warning, *(Note("info", "skipped", line) for line in lines)]
