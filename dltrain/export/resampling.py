"""Resizing as `data.images.decoding` does it, as a graph: images of any size in, the canvas out. Imports torch.

    (N, H, W, C) uint8 -> columns resampled, rounded -> rows resampled, rounded -> (N, C, height, width) in 0..255

Both steps are matrix products: each new pixel is a weighted sum of those that it covers. So every runtime can do it,
also one without an antialiased resize, and only what is left after cutting is ever computed. The weights are the
integers that torch's and Pillow's resizing of bytes count with, so that the sums are theirs, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dltrain.data.types import Canvas, Interpolation

Filter = Callable[[Tensor], Tensor]
TORCH_LIMIT = 2.0**15 - 0.5
"""torch's weights are integers below this, the largest power of two that allows it their unit
(aten/src/ATen/native/cpu/UpSampleKernel.cpp); their sums with bytes are exact in float32."""
PILLOW_BITS = 22
"""Pillow's weights are multiples of 2^-22 (src/libImaging/Resample.c): sums with bytes need float64 to be exact."""


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution with a = -0.5, as Pillow has it, and torch where it shrinks over all pixels."""
    a, x = -0.5, x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _lanczos(x: Tensor) -> Tensor:
    """sinc(x) sinc(x / 3) for |x| < 3."""
    at = math.pi * torch.where(x == 0, torch.ones_like(x), x)
    window = 3 * at.sin() * (at / 3).sin() / (at * at)
    inside = torch.where(x.abs() < 3, window, torch.zeros_like(x))
    return torch.where(x == 0, torch.ones_like(x), inside)


FILTERS: dict[Interpolation, Filter] = {"bilinear": _triangle, "bicubic": _cubic, "lanczos": _lanczos}


class Resample(nn.Module):
    """Images (N, H, W, C) uint8 of any size -> (N, C, height, width) float32, whole numbers in 0..255: resized until
    they cover the canvas divided by its share `crop`, and cut at the centre."""

    def __init__(self, canvas: Canvas) -> None:
        super().__init__()
        self.height, self.width = canvas.height, canvas.width
        self.least = tuple(math.floor(side / canvas.crop + 1e-6) for side in (canvas.height, canvas.width))
        self.filter = FILTERS.get(canvas.interpolation)
        self.as_pillow = canvas.interpolation == "lanczos"

    def forward(self, images: Tensor) -> Tensor:
        height, width = _number(images.shape[1]), _number(images.shape[2])
        least_h, least_w = self.least
        new_h = torch.maximum(torch.floor(least_w * height / width), _number(least_h))
        new_w = torch.maximum(torch.floor(least_h * width / height), _number(least_w))
        pixels = images.permute(0, 3, 1, 2)
        if self.filter is None:
            rows = _nearest(height, new_h, self.height)
            columns = _nearest(width, new_w, self.width)
            return pixels.index_select(2, rows).index_select(3, columns).float()
        kind = torch.float64 if self.as_pillow else torch.float32
        across, unit = self._weights(self.filter, images.shape[2], width, new_w, self.width)
        resized = _to_bytes(pixels.to(kind) @ across.to(kind).T, unit.to(kind))
        down, unit = self._weights(self.filter, images.shape[1], height, new_h, self.height)
        return _to_bytes(down.to(kind) @ resized, unit.to(kind)).float()

    def _weights(self, filter_: Filter, count: int, have: Tensor, new: Tensor, kept: int) -> tuple[Tensor, Tensor]:
        """(kept, count) float64: what each of the `count` pixels of a line counts for each that is kept, as integers;
        and the unit that they are counted in."""
        scale = have / new
        places = torch.cat([_number(0)[None], _kept(new, kept), (new - 1)[None]])  # and the ends, for the largest one
        centres = (places + 0.5) * scale
        offsets = torch.arange(count, dtype=torch.float64)[None] - centres[:, None] + 0.5
        weights = filter_(offsets / scale.clamp(min=1))
        weights = weights / weights.sum(1, keepdim=True)
        powers = 2.0 ** torch.arange(PILLOW_BITS + 1, dtype=torch.float64)
        if self.as_pillow:
            unit = powers[PILLOW_BITS]
        else:
            unit = torch.where(weights.flatten().amax(0) * powers < TORCH_LIMIT, powers, torch.ones_like(powers)).amax(
                0
            )
        return ((weights * unit).abs() + 0.5).floor()[1:-1] * weights.sign()[1:-1], unit


def _number(value: int) -> Tensor:
    """A float64 scalar, of a size that is known only when the graph runs."""
    return torch.full((), value, dtype=torch.float64)


def _kept(new: Tensor, kept: int) -> Tensor:
    """(kept,) float64: the places of the central pixels of a line of `new` ones."""
    return torch.arange(kept, dtype=torch.float64) + torch.round((new - kept) / 2)


def _nearest(have: Tensor, new: Tensor, kept: int) -> Tensor:
    """(kept,) int64: which pixel of a line each is that is kept, as torch's `nearest-exact` finds it, in float32."""
    scale = have.float() / new.float()
    return torch.minimum(((_kept(new, kept).float() + 0.5) * scale).floor().double(), have - 1).long()


def _to_bytes(sums: Tensor, unit: Tensor) -> Tensor:
    """Sums in a unit as whole numbers in 0..255, halves rounded up."""
    return ((sums + unit / 2) / unit).floor().clamp(0, 255)
