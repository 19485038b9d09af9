"""Where pixels go: batched crops, flips, shifts, affine maps and resized crops, each example with its own draws.

Moves by whole pixels along rows and columns (`Rearrange`) say what they would do, so that the pipeline can
join a chain of them into one gather. Everything else resamples and returns float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dltrain.data.loading.resources import one_thread
from dltrain.data.random import Draws, derive_seed
from dltrain.data.types import Batch


@dataclass(frozen=True)
class Shift:
    """Position j shows what was at j + offset, per example: (B,) int64. Beyond the border: 0, or a reflection."""

    offset: Tensor
    fill: Literal["zero", "reflect"] = "zero"


@dataclass(frozen=True)
class Mirror:
    """The line reversed where `chosen`: (B,) bool."""

    chosen: Tensor


Motion = tuple[Shift | Mirror | None, Shift | Mirror | None]
"""What happens to the order of the rows, and to that of the columns."""


@dataclass(frozen=True)
class Rearrange:
    """A transform that only moves whole pixels.

    draw: what it draws for so many examples, which are the last dimension. motion: what that means.
    reach: the farthest that it shifts, in pixels; None when it also reflects at the border.
    """

    draw: Callable[[Draws, int], Tensor]
    motion: Callable[[Batch, Tensor], Motion]
    reach: int | None = 0

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        return rearrange(batch, [self.motion(batch, self.draw(draws, len(batch)))])


def rearrange(batch: Batch, motions: Sequence[Motion]) -> Batch:
    """The batch after all `motions` in turn, by one gather; uint8 stays uint8."""
    count, channels, height, width = batch.inputs.shape
    device = batch.inputs.device
    if device.type == "cpu" and not any(isinstance(line, Shift) for motion in motions for line in motion):
        return batch.with_(inputs=_mirrored(batch.inputs, motions))
    rows = sources([row for row, _ in motions], height, device)
    columns = sources([column for _, column in motions], width, device)
    padded = F.pad(batch.inputs, (0, 1, 0, 1)).flatten(2)  # the row and the column that mean outside
    index = (rows[:, :, None] * (width + 1) + columns[:, None, :]).view(-1, 1, height * width)
    moved = padded.gather(2, index.expand(count, channels, -1))
    return batch.with_(inputs=moved.view(count, channels, height, width))


def _mirrored(images: Tensor, motions: Sequence[Motion]) -> Tensor:
    """`rearrange` where images are mirrored at most: on a CPU, only those that change are touched."""
    with one_thread():
        moved = images.clone()
        for axis in (1, 2):
            chosen = torch.zeros(len(images), dtype=torch.bool)
            for motion in motions:
                if isinstance(mirror := motion[axis - 1], Mirror):
                    chosen = chosen ^ mirror.chosen
            for number, yes in enumerate(chosen.tolist()):
                if yes:
                    moved[number] = moved[number].flip(axis)
    return moved


def sources(motions: Sequence[Shift | Mirror | None], length: int, device: torch.device) -> Tensor:
    """Where each position of a line comes from after all motions: (B or 1, length) int64, `length` for outside."""
    line = torch.arange(length, device=device)
    table: Tensor | None = None
    for motion in motions:
        if motion is None:
            continue
        if isinstance(motion, Mirror):
            step = torch.where(motion.chosen[:, None], line.flip(0), line)
        else:
            step = _shifted(line, motion)
        table = step if table is None else F.pad(table, (0, 1), value=length).gather(1, step)
    return line[None] if table is None else table


def _shifted(line: Tensor, shift: Shift) -> Tensor:
    last = len(line) - 1
    moved = line + shift.offset[:, None]
    if shift.fill == "reflect":
        return last - (last - moved.abs()).abs()
    return moved.masked_fill_((moved < 0) | (moved > last), last + 1)


def random_crop(padding: int, fill: Literal["zero", "reflect"]) -> Rearrange:
    """A window of the image's own size, at one of (2 padding + 1)^2 equally likely places of the padded image."""

    def motion(_: Batch, drawn: Tensor) -> Motion:
        top, left = (drawn - padding).unbind()
        return Shift(top, fill), Shift(left, fill)

    reach = padding if fill == "zero" else None
    return Rearrange(lambda draws, count: draws.integers(2 * padding + 1, 2, count), motion, reach)


def translate(share: float, reach: int) -> Rearrange:
    """A shift by whole pixels, uniform within +-share of the height and of the width."""

    def motion(batch: Batch, drawn: Tensor) -> Motion:
        down, right = drawn
        height, width = batch.inputs.shape[2:]
        return Shift(-(down * share * height).round().long()), Shift(-(right * share * width).round().long())

    return Rearrange(lambda draws, count: draws.uniform(2, count, low=-1.0), motion, reach)


def flip(probability: float, axis: int) -> Rearrange:
    """Mirrored along `axis` (2: rows, 3: columns) with the given probability."""

    def motion(_: Batch, drawn: Tensor) -> Motion:
        mirror = Mirror(drawn < probability)
        return (mirror, None) if axis == 2 else (None, mirror)

    return Rearrange(lambda draws, count: draws.uniform(count), motion)


def alternating_flip(seed: int) -> Rearrange:
    """Mirrored in every other epoch of an example; which ones come first is a hash of (seed, example)."""

    def motion(batch: Batch, _: Tensor) -> Motion:
        # One round of multiply and shift over wrapping int64, so that it runs alike on every device.
        hashed = (batch.indices + derive_seed(seed, "alternating_flip")) * 0x5851F42D4C957F2D
        hashed = (hashed ^ ((hashed >> 31) & 0xFFFFFFFF)) * 0x27BB2EE687B0B0FD
        return None, Mirror((((hashed >> 41) + batch.epochs) & 1).bool())

    return Rearrange(lambda draws, count: torch.empty(0, count, device=draws.device), motion)


def affine(images: Tensor, matrix: Tensor, mode: Literal["nearest", "bilinear"]) -> Tensor:
    """Images resampled at `matrix @ (x, y, 1)`, zero outside; float32.

    matrix: (B, 2, 3), from output to input pixels, with x to the right and y down from the centre.
    """
    height, width = images.shape[2:]
    size = torch.tensor([width, height], dtype=torch.float32)
    # The unit of affine_grid is half an image; these factors are on the host and move without a wait.
    unit = send(torch.cat([size / size[:, None], 2 / size[:, None]], 1), images.device)
    grid = F.affine_grid(matrix * unit, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, mode=mode, padding_mode="zeros", align_corners=False)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A host tensor on `device`; the host does not wait for it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def turned(degrees: Tensor, scale: Tensor | None = None) -> Tensor:
    """(B, 2, 3) matrices for `affine`: counter-clockwise by degrees (B,), enlarged by scale (B,)."""
    radians = degrees * (math.pi / 180)
    cosine, sine, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    matrix = torch.stack([cosine, -sine, zero, sine, cosine, zero], 1).view(-1, 2, 3)
    return matrix if scale is None else matrix / scale[:, None, None]


def rotation(batch: Batch, draws: Draws, degrees: float, mode: Literal["nearest", "bilinear"]) -> Batch:
    """Turned about the centre by an angle uniform in +-degrees."""
    angles = draws.uniform(len(batch), low=-degrees, high=degrees)
    return batch.with_(inputs=affine(batch.inputs, turned(angles), mode))


def scale(batch: Batch, draws: Draws, low: float, high: float) -> Batch:
    """Enlarged about the centre by a factor uniform in [low, high)."""
    factors = draws.uniform(len(batch), low=low, high=high)
    return batch.with_(inputs=affine(batch.inputs, turned(torch.zeros_like(factors), factors), "bilinear"))


def draw_boxes(
    draws: Draws,
    height: Tensor,
    width: Tensor,
    area: tuple[float, float],
    ratio: tuple[float, float],
    attempts: int = 10,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sizes of boxes within images of sizes (B,): heights (B,), widths (B,), and whether any attempt fitted (B,).

    A box has a share of the image's area uniform in `area` and width over height log-uniform in `ratio`; the
    first of `attempts` that fits is taken, as torchvision does.
    """
    share = draws.uniform(attempts, len(height), low=area[0], high=area[1]) * (height * width)
    aspect = draws.uniform(attempts, len(height), low=math.log(ratio[0]), high=math.log(ratio[1])).exp()
    widths, heights = (share * aspect).sqrt().round(), (share / aspect).sqrt().round()
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    first = fits.int().argmax(0, keepdim=True)
    return heights.gather(0, first)[0], widths.gather(0, first)[0], fits.any(0)


@dataclass(frozen=True)
class ResizedCrop:
    """A box of each image (of its valid part, if extents are given), resized to `size` (height, width)."""

    size: tuple[int, int]
    area: tuple[float, float]
    ratio: tuple[float, float]

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        extents = batch.extents
        if extents is None:
            count, _, height, width = batch.inputs.shape
            ones = torch.ones(count, device=batch.inputs.device)
            extents = torch.stack([ones * height, ones * width], 1)
        return batch.with_(inputs=resized_crop(batch.inputs, *self._boxes(extents, draws), self.size), extents=None)

    def of(self, images: Sequence[Tensor], draws: Draws) -> Tensor:
        """The same of images (C, h, w) on the CPU, each of a size of its own: (B, C, height, width)."""
        extents = torch.tensor([image.shape[1:] for image in images])
        return _cut_out(images, *self._boxes(extents, draws), self.size)

    def _boxes(self, extents: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Top, left, height and width (B,) of a box in each image of extents (B, 2)."""
        height, width = extents.float().unbind(1)
        box_height, box_width, found = draw_boxes(draws, height, width, self.area, self.ratio)
        # torchvision's fallback: the largest central box of an allowed ratio
        narrow, flat = (width / self.ratio[0]).round().clamp(min=1), (height * self.ratio[1]).round().clamp(min=1)
        box_height = torch.where(found, box_height, torch.minimum(height, narrow))
        box_width = torch.where(found, box_width, torch.minimum(width, flat))
        down, right = torch.where(found, draws.uniform(2, len(height)), 0.5)
        top = (down * (height - box_height + 1)).floor().clamp(max=height - box_height)
        left = (right * (width - box_width + 1)).floor().clamp(max=width - box_width)
        return top, left, box_height, box_width


def resized_crop(
    images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: tuple[int, int]
) -> Tensor:
    """The box (B,) of each image resized to `size` (height, width), bilinearly with antialiasing.

    Boxes are of whole pixels. uint8 images stay uint8.
    """
    if images.device.type == "cpu":
        return _cut_out(images, top, left, height, width, size)
    resized = resized_by_matrices(images.to(torch.float32, memory_format=torch.contiguous_format),
                                  (top, left, height, width), size)  # fmt: skip
    return resized.round_().to(images.dtype) if images.dtype == torch.uint8 else resized


def resized_by_matrices(images: Tensor, boxes: tuple[Tensor, Tensor, Tensor, Tensor], size: tuple[int, int]) -> Tensor:
    """`resized_crop` of float32 images as two products for the whole batch, as a GPU likes it."""
    top, left, height, width = boxes
    rows = _resizing(top, height, images.shape[2], size[0])
    columns = _resizing(left, width, images.shape[3], size[1])
    return rows[:, None] @ (images @ columns[:, None].mT)


def _cut_out(
    images: Tensor | Sequence[Tensor], top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: tuple[int, int]
) -> Tensor:
    """`resized_crop`, box by box: on a CPU a tenth of the time of the matrices and less, as no pixel beside the box
    is touched and bytes are added up as integers."""
    first = images[0]
    side_by_side = first.stride(0) == 1  # the channels of a pixel
    layout = torch.channels_last if side_by_side else torch.contiguous_format
    cut = torch.empty(len(images), len(first), *size, dtype=first.dtype, memory_format=layout)
    boxes = torch.stack([top, left, height, width], 1).long().tolist()
    with one_thread():
        for number, (y, x, h, w) in enumerate(boxes):
            box = images[number][None, :, y : y + h, x : x + w].contiguous(memory_format=layout)
            cut[number] = F.interpolate(box, size=size, mode="bilinear", antialias=True, align_corners=False)[0]
    return cut


def _resizing(start: Tensor, length: Tensor, source: int, target: int) -> Tensor:
    """(B, target, source) weights that resize the span [start, start + length) bilinearly, with antialiasing.

    The same triangle filter as `interpolate(..., mode="bilinear", antialias=True)` of the cut-out span; as
    matrices, because every example has another span.
    """
    step = (length / target)[:, None, None]
    place = torch.arange(source, device=start.device) + 0.5 - start[:, None, None]
    centre = (torch.arange(target, device=start.device)[:, None] + 0.5) * step
    weights = (1 - (place - centre).abs() / step.clamp(min=1)).clamp(min=0)
    weights = weights * ((place > 0) & (place < length[:, None, None]))
    return weights / weights.sum(2, keepdim=True)
