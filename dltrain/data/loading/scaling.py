"""Input scaling: (x - mean) / std per channel or per feature, on values 0..255, or whitening of whole images.

Fitted on the training part, kept in checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from dltrain.data.loading.whitening import Whitener, Whitening
from dltrain.data.types import Canvas, ImageSource
from dltrain.errors import Note

ScalingKind = Literal[
    "none", "min_max", "standardize", "featurewise_min_max", "featurewise_standardize", "pca_whiten", "zca_whiten"
]
OF_WHOLE_IMAGES = ("featurewise_min_max", "featurewise_standardize", "pca_whiten", "zca_whiten")
"""They know every value of an image by its place, so images must have the size that the model takes."""
SAMPLE = 2048
"""Files that statistics are measured on, evenly spaced over the training part; arrays are measured whole."""
CHUNK_BYTES = 2**25
"""Pixels that are measured at a time."""


@dataclass(frozen=True)
class Features:
    """mean and std of each value of an image, (C, H, W) float64 in 0..255."""

    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, kind: ScalingKind, images: Iterable[Tensor]) -> Features:
        """Measured on all images, parts of (n, C, H, W) uint8; the sums are exact (integers).

        A feature that is the same in all of them becomes 0 everywhere, as with scikit-learn's scalers.
        """
        n, total, squares = 0, torch.zeros(()), torch.zeros(())
        low, high = torch.tensor(255, dtype=torch.uint8), torch.tensor(0, dtype=torch.uint8)
        for part in images:
            values = part.long()
            n, total, squares = n + len(part), values.sum(0) + total.long(), (values**2).sum(0) + squares.long()
            low, high = part.amin(0).minimum(low), part.amax(0).maximum(high)
        if kind == "featurewise_min_max":
            mean, std = low.double(), high.double() - low
        else:
            mean, std = total.double() / n, (n * squares - total**2).double().sqrt() / n
        return cls(mean, torch.where(std > 0, std, 1.0))


@dataclass(frozen=True)
class Scaling:
    """mean and std per channel, in 0..255; `features` or `whitening` are done in their place."""

    mean: list[float]
    std: list[float]
    whitening: Whitening | None = field(default=None, compare=False)
    features: Features | None = field(default=None, compare=False)
    remarks: list[Note] = field(default_factory=list, compare=False)
    """What was found about the images it was fitted on; not stored."""

    @classmethod
    def done(cls) -> Scaling:
        """Of examples that lie scaled in their layout: nothing is left to do."""
        return cls([], [])

    @classmethod
    def fit(cls, kind: ScalingKind, source: ImageSource, canvas: Canvas, epsilon: float = 0.01) -> Scaling:
        """The scaling of images `source`, as they lie on the canvas.

        none: to 0..1 (mean 0, std 255). min_max: the channel's smallest and largest value to 0 and 1.
        standardize: mean 0 and population standard deviation 1. A constant channel becomes 0 everywhere.
        Sums are exact (integers); of files, at most 2,048 evenly spaced ones are measured.
        featurewise_min_max, featurewise_standardize: the same of each value of an image (a pixel's channel), over all
        images. pca_whiten, zca_whiten: see `whitening`; all images are measured. Raises ConfigError when they are too
        large.
        """
        if kind == "none":
            return cls([0.0] * source.channels, [255.0] * source.channels)
        mean, std = [], []
        values = np.arange(256)
        found = measured(source, canvas)
        for counts in found.counts:
            n, total, squares = (int((counts * values**power).sum()) for power in (0, 1, 2))
            if kind != "min_max":
                mean.append(total / n)
                std.append(math.sqrt(n * squares - total**2) / n or 1.0)
            else:
                present = np.flatnonzero(counts)
                mean.append(float(present[0]))
                std.append(float(present[-1] - present[0]) or 1.0)
        remarks = found.remarks(source)
        if kind in ("pca_whiten", "zca_whiten"):
            whitening = Whitening.fit(kind, _images(source, canvas, len(source)), epsilon)
            return cls(mean, std, whitening, remarks=remarks)
        if kind in ("featurewise_min_max", "featurewise_standardize"):
            features = Features.fit(kind, _images(source, canvas, len(source)))
            return cls(mean, std, features=features, remarks=remarks)
        return cls(mean, std, remarks=remarks)

    def to_dict(self) -> dict[str, Any]:
        """Plain values and tensors, for the checkpoint."""
        whitening = {} if self.whitening is None else {"whitening": self.whitening.to_dict()}
        features = {} if self.features is None else {"features": vars(self.features)}
        return {"mean": list(self.mean), "std": list(self.std), **whitening, **features}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Scaling:
        """What `to_dict` wrote."""
        whitening = Whitening(**values["whitening"]) if "whitening" in values else None
        features = Features(**values["features"]) if "features" in values else None
        return cls(list(values["mean"]), list(values["std"]), whitening, features)

    def on(self, device: torch.device | str, *, channels_last: bool = False) -> Scaler | Whitener | Identity:
        """The function, with its constants on the device."""
        if not self.mean:
            return Identity()
        if self.whitening is not None:
            return self.whitening.on(torch.device(device), channels_last=channels_last)
        return Scaler(self, torch.device(device), channels_last)

    def apply(self, images: Tensor, *, channels_last: bool = False) -> Tensor:
        """`images` scaled, once; where it happens every step, use `on`."""
        return self.on(images.device, channels_last=channels_last).apply(images)


class Identity:
    """A scaling that changes nothing."""

    def apply(self, inputs: Tensor) -> Tensor:
        """The inputs."""
        return inputs

    def invert(self, inputs: Tensor) -> Tensor:
        """The inputs."""
        return inputs


class Scaler:
    """A scaling with its constants on a device: factor * x + offset, which is (x - mean) / std in one pass."""

    def __init__(self, scaling: Scaling, device: torch.device, channels_last: bool) -> None:
        mean, std = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (scaling.mean, scaling.std))
        if scaling.features is not None:
            mean, std = scaling.features.mean[None], scaling.features.std[None]
        constants = mean, std, 1 / std, -mean / std
        self.mean, self.std, self.factor, self.offset = (t.float().to(device) for t in constants)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        on_cpu = device.type == "cpu"  # where it is faster to compute in the format in which images come
        self._computes_in = torch.preserve_format if on_cpu else self.format
        self._by_channel = scaling.features is None
        self._rows: dict[int, tuple[Tensor, Tensor]] = {}
        """By the width of an image: factor and offset of each value in a row of pixels, (1, C, 1, W)."""

    def apply(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 or float, values 0..255, to float32; the input is left as it is."""
        values = images.to(torch.float32, memory_format=self._computes_in)
        by_row = self._by_channel and self._computes_in is torch.preserve_format and not values.is_contiguous()
        factor, offset = self._row(values.shape[3]) if by_row else (self.factor, self.offset)
        scaled = torch.addcmul(offset, values, factor, out=None if values is images else values)
        return scaled.contiguous(memory_format=self.format)

    def _row(self, width: int) -> tuple[Tensor, Tensor]:
        """Where the channels of a pixel lie side by side, constants that do too let whole rows be computed, instead of
        three numbers at a time (464 -> 150 us for 128 images of 3x32x32)."""
        if width not in self._rows:
            wide = [t.expand(-1, -1, 1, width) for t in (self.factor, self.offset)]
            factor, offset = (t.contiguous(memory_format=torch.channels_last) for t in wide)
            self._rows[width] = factor, offset
        return self._rows[width]

    def invert(self, inputs: Tensor) -> Tensor:
        """Scaled images back to values 0..255, float32."""
        return inputs * self.std + self.mean


@dataclass(frozen=True)
class Measured:
    """counts: (C, 256) int64, how often each channel has each value. seen: how many images were looked at; flat: the
    places in the split of those whose channels each have one value alone."""

    counts: np.ndarray
    seen: int
    flat: list[int]

    def remarks(self, source: ImageSource) -> list[Note]:
        """Warnings about channels and images that tell nothing apart."""
        found = []
        for channel, counts in enumerate(self.counts):
            if np.count_nonzero(counts) == 1:
                value = int(np.argmax(counts))
                text = f"channel {channel} of the training images is {value} everywhere"
                found.append(Note("warning", "constant", text))
        if self.flat and self.seen > 1:
            first = self.flat[0]
            name = source.files.paths[first] if source.files is not None else f"number {first}"
            have = "has" if len(self.flat) == 1 else "have"
            text = f"{len(self.flat):,} of {self.seen:,} training images {have} one colour alone, such as {name}"
            found.append(Note("warning", "constant", text))
        return found


_FOUND: WeakKeyDictionary[ImageSource, dict[Canvas, Measured]] = WeakKeyDictionary()
"""What was measured of the sources that are still there: many trainings of a search share one."""


def measured(source: ImageSource, canvas: Canvas) -> Measured:
    """The values of the images: of all of an array, of at most 2,048 evenly spaced files."""
    found = _FOUND.setdefault(source, {})
    if canvas not in found:
        found[canvas] = _measured(source, canvas)
    return found[canvas]


def _measured(source: ImageSource, canvas: Canvas) -> Measured:
    counts: np.ndarray | None = None
    flat: list[int] = []
    indices, seen = chosen(source, None), 0
    for images in _images(source, canvas):
        found = np.stack([torch.bincount(plane.flatten(), minlength=256).numpy() for plane in images.unbind(1)])
        counts = found if counts is None else counts + found
        flat += [int(indices[seen + number]) for number in _flat(images)]
        seen += len(images)
    assert counts is not None
    return Measured(counts, seen, flat)


def _flat(images: Tensor) -> list[int]:
    """Which of the images (n, C, H, W) have one value alone in each channel."""
    few = images[:, :, :: max(images.shape[2] // 4, 1), :: max(images.shape[3] // 4, 1)]  # nearly all show it here
    maybe = (few == few[:, :, :1, :1]).flatten(1).all(1).nonzero()[:, 0].tolist()
    return [number for number in maybe if bool((images[number] == images[number][:, :1, :1]).all())]


def pixel_covariance(source: ImageSource, canvas: Canvas) -> Tensor:
    """(C, C) float32 population covariance of the channels, of pixels in 0..1 (Krizhevsky et al. 2012).

    Measured on at most 2,048 evenly spaced examples.
    """
    n, total, products = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for images in _images(source, canvas, SAMPLE):
        pixels = images.transpose(0, 1).flatten(1).double() / 255
        n, total, products = n + pixels.shape[1], total + pixels.sum(1), products + pixels @ pixels.T
    mean = total / n
    return (products / n - torch.outer(mean, mean)).float()


def chosen(source: ImageSource, limit: int | None) -> np.ndarray:
    """The evenly spaced places of the images that are measured; by default all of an array, 2,048 files."""
    if limit is None:
        limit = len(source) if source.in_memory else SAMPLE
    return np.unique(np.linspace(0, len(source) - 1, min(limit, len(source))).round().astype(np.int64))


def _images(source: ImageSource, canvas: Canvas, limit: int | None = None) -> Iterator[Tensor]:
    """The images on the canvas in parts, (n, C, H, W) uint8; without what lies beside an image on a fit canvas."""
    indices = chosen(source, limit)
    chunk = max(CHUNK_BYTES // (source.channels * canvas.height * canvas.width), 1)
    for start in range(0, len(indices), chunk):
        images, extents = source.load(indices[start : start + chunk], canvas)
        if extents is None:
            yield images
            continue
        for image, (height, width) in zip(images, extents.tolist(), strict=True):
            yield image[None, :, :height, :width]
