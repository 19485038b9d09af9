"""Input scaling: (x - mean) / std per channel, on values 0..255, or whitening of whole images.

Fitted on the training part, kept in checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dltrain.data.base import ArraySource, Source
from dltrain.data.canvas import Canvas, place_all
from dltrain.data.packs import load_source
from dltrain.data.whitening import Whitener, Whitening

ScalingKind = Literal["none", "min_max", "standardize", "pca_whiten", "zca_whiten"]
SAMPLE = 2048
"""Files that statistics are measured on, evenly spaced over the training part; arrays are measured whole."""
CHUNK_BYTES = 2**25
"""Pixels that are measured at a time."""


@dataclass(frozen=True)
class Scaling:
    """mean and std per channel, in 0..255; `whitening` is done in their place."""

    mean: list[float]
    std: list[float]
    whitening: Whitening | None = field(default=None, compare=False)

    @classmethod
    def fit(cls, kind: ScalingKind, source: Source, canvas: Canvas, epsilon: float = 0.01) -> Scaling:
        """The scaling of images `source`, as they lie on the canvas.

        none: to 0..1 (mean 0, std 255). min_max: the channel's smallest and largest value to 0 and 1.
        standardize: mean 0 and population standard deviation 1. A constant channel becomes 0 everywhere.
        Sums are exact (integers); of files, at most 2,048 evenly spaced ones are measured.
        pca_whiten, zca_whiten: see `whitening`; all images are measured. Raises ConfigError when they are too large.
        """
        if kind == "none":
            channels = source.images.shape[1] if isinstance(source, ArraySource) else source.channels
            return cls([0.0] * channels, [255.0] * channels)
        mean, std = [], []
        values = np.arange(256)
        for counts in histogram(source, canvas):
            n, total, squares = (int((counts * values**power).sum()) for power in (0, 1, 2))
            if kind != "min_max":
                mean.append(total / n)
                std.append(math.sqrt(n * squares - total**2) / n or 1.0)
            else:
                present = np.flatnonzero(counts)
                mean.append(float(present[0]))
                std.append(float(present[-1] - present[0]) or 1.0)
        if kind in ("pca_whiten", "zca_whiten"):
            return cls(mean, std, Whitening.fit(kind, _images(source, canvas, len(source)), epsilon))
        return cls(mean, std)

    def to_dict(self) -> dict[str, Any]:
        """Plain values and tensors, for the checkpoint."""
        whitening = {} if self.whitening is None else {"whitening": self.whitening.to_dict()}
        return {"mean": list(self.mean), "std": list(self.std), **whitening}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Scaling:
        """What `to_dict` wrote."""
        whitening = Whitening(**values["whitening"]) if "whitening" in values else None
        return cls(list(values["mean"]), list(values["std"]), whitening)

    def on(self, device: torch.device | str, *, channels_last: bool = False) -> Scaler | Whitener:
        """The function, with its constants on the device."""
        if self.whitening is not None:
            return self.whitening.on(torch.device(device), channels_last=channels_last)
        return Scaler(self, torch.device(device), channels_last)

    def apply(self, images: Tensor, *, channels_last: bool = False) -> Tensor:
        """`images` scaled, once; where it happens every step, use `on`."""
        return self.on(images.device, channels_last=channels_last).apply(images)


class Scaler:
    """A scaling with its constants on a device: factor * x + offset, which is (x - mean) / std in one pass."""

    def __init__(self, scaling: Scaling, device: torch.device, channels_last: bool) -> None:
        mean, std = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (scaling.mean, scaling.std))
        constants = mean, std, 1 / std, -mean / std
        self.mean, self.std, self.factor, self.offset = (t.float().to(device) for t in constants)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        on_cpu = device.type == "cpu"  # where it is faster to compute in the format in which images come
        self._computes_in = torch.preserve_format if on_cpu else self.format
        self._rows: dict[int, tuple[Tensor, Tensor]] = {}
        """By the width of an image: factor and offset of each value in a row of pixels, (1, C, 1, W)."""

    def apply(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 or float, values 0..255, to float32; the input is left as it is."""
        values = images.to(torch.float32, memory_format=self._computes_in)
        by_row = self._computes_in is torch.preserve_format and not values.is_contiguous()
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


def histogram(source: Source, canvas: Canvas) -> np.ndarray:
    """(C, 256) int64: how often each channel has each value."""
    counts: np.ndarray | None = None
    for images in _images(source, canvas):
        found = np.stack([torch.bincount(plane.flatten(), minlength=256).numpy() for plane in images.unbind(1)])
        counts = found if counts is None else counts + found
    assert counts is not None
    return counts


def pixel_covariance(source: Source, canvas: Canvas) -> Tensor:
    """(C, C) float32 population covariance of the channels, of pixels in 0..1 (Krizhevsky et al. 2012).

    Measured on at most 2,048 evenly spaced examples.
    """
    n, total, products = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for images in _images(source, canvas, SAMPLE):
        pixels = images.transpose(0, 1).flatten(1).double() / 255
        n, total, products = n + pixels.shape[1], total + pixels.sum(1), products + pixels @ pixels.T
    mean = total / n
    return (products / n - torch.outer(mean, mean)).float()


def _images(source: Source, canvas: Canvas, limit: int | None = None) -> Iterator[Tensor]:
    """The images on the canvas in parts, (n, C, H, W) uint8; without what lies beside an image on a fit canvas."""
    if limit is None:
        limit = len(source) if isinstance(source, ArraySource) else SAMPLE
    indices = np.unique(np.linspace(0, len(source) - 1, min(limit, len(source))).round().astype(np.int64))
    channels = source.images.shape[1] if isinstance(source, ArraySource) else source.channels
    chunk = max(CHUNK_BYTES // (channels * canvas.height * canvas.width), 1)
    for start in range(0, len(indices), chunk):
        part = indices[start : start + chunk]
        if isinstance(source, ArraySource):
            placed, (height, width) = place_all(source, canvas, part)
            yield placed[:, :, :height, :width]
            continue
        images, extents = load_source(source, torch.from_numpy(part), canvas)
        if canvas.rule != "fit":
            yield images
            continue
        for image, (height, width) in zip(images, extents.tolist(), strict=True):
            yield image[None, :, :height, :width]
