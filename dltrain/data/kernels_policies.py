"""RandAugment and TrivialAugment on batches: every example has its own operations.

The operations are drawn on the host. Examples are sorted by operation, each operation runs once for its
group, with one magnitude per example, and the examples return to their places. All work is on uint8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dltrain.data.base import Batch, Draws
from dltrain.data.kernels_color import blend, brightness, contrast, per_image, saturation
from dltrain.data.kernels_geometry import affine, send, turned

Operation = Callable[[Tensor, Tensor], Tensor]
"""uint8 images (n, C, H, W) and a magnitude for each (n,) to uint8 images; for `warp`, matrices (n, 2, 3)."""


@dataclass(frozen=True)
class Ranges:
    """The largest magnitudes: shear as a slope, shift in pixels along x and y, degrees, |factor - 1|, bits."""

    shear: float
    shift: tuple[float, float]
    degrees: float
    factor: float
    bits: int

    def magnitudes(self, bins: int) -> Tensor:
        """(14, bins) magnitude of each operation at each level, in the order of `NAMES`."""
        level = torch.linspace(0, 1, bins)
        none = torch.zeros(bins)
        shifts = [(level * reach).trunc() for reach in self.shift]
        shears, factors = [level * self.shear] * 2, [level * self.factor] * 4
        dropped = (level * self.bits).round()
        return torch.stack(
            [none, *shears, *shifts, level * self.degrees, *factors, dropped, 255 * (1 - level), none, none]
        )


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """An affine map, nearest pixel, zero outside."""
    return affine(images, matrices, "nearest").to(torch.uint8)


def sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """Away from the image smoothed by a 3x3 kernel of ones with 5 in the middle; the border is not smoothed."""
    if min(images.shape[2:]) < 3:
        return images.float()
    images = images.float()
    smooth = images.clone()
    middle = smooth[:, :, 1:-1, 1:-1]
    middle.mul_(4).add_(F.avg_pool2d(images, 3, stride=1), alpha=9).div_(13).round_()
    return blend(smooth, images, factors)


def posterize(images: Tensor, dropped: Tensor) -> Tensor:
    """The lowest `dropped` bits set to 0."""
    return images & per_image((256 - dropped.exp2()).to(torch.uint8))


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Values from the threshold on inverted."""
    return torch.where(images >= per_image(thresholds), 255 - images, images)


def autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """Each channel stretched to 0..255; a constant one stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    span = (high - low).float()
    stretched = ((images - low).float() * 255 / span.clamp(min=1)).to(torch.uint8)
    return torch.where(span > 0, stretched, images)


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """Each channel's histogram made flat, by Pillow's rule."""
    levels = images.flatten(2).long()
    counts = levels.new_zeros(*levels.shape[:2], 256).scatter_add_(2, levels, torch.ones_like(levels))
    brightest = counts.gather(2, levels.amax(2, keepdim=True))
    step = (levels.shape[2] - brightest) // 255
    darker = counts.cumsum(2) - counts
    table = ((darker + step // 2) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))
    return table.gather(2, levels).to(torch.uint8).view_as(images)


def _from_factor(adjust: Operation) -> Operation:
    """`adjust` by 1 + magnitude, truncated to uint8 as Pillow and torchvision do."""
    return lambda images, magnitudes: adjust(images, 1 + magnitudes).to(torch.uint8)


NAMES = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate",
    "brightness", "color", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
SIGNED = torch.tensor([0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0], dtype=torch.bool)
GROUP = torch.tensor([0, 1, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9])
OPERATIONS: tuple[Operation, ...] = (
    lambda images, _: images, warp,
    _from_factor(brightness), _from_factor(saturation), _from_factor(contrast), _from_factor(sharpness),
    posterize, solarize, autocontrast, equalize,
)  # fmt: skip


def warp_matrices(operations: Tensor, magnitudes: Tensor, height: int, width: int) -> Tensor:
    """(..., 2, 3) matrices for `warp` of each example; shears keep the top left corner in place."""
    turn = turned(torch.where(operations == 5, magnitudes, 0.0).flatten()).view(*operations.shape, 2, 3)
    slope_x, slope_y = (torch.where(operations == i, magnitudes, 0.0) for i in (1, 2))
    shift_x, shift_y = (torch.where(operations == i, magnitudes, 0.0) for i in (3, 4))
    zero = torch.zeros_like(magnitudes)
    first = torch.stack([zero, slope_x, slope_x * height / 2 - shift_x], -1)
    second = torch.stack([slope_y, zero, slope_y * width / 2 - shift_y], -1)
    return turn + torch.stack([first, second], -2)


def apply_policy(batch: Batch, draws: Draws, rounds: int, table: Tensor, level: int | None) -> Batch:
    """`rounds` operations on each example, drawn with replacement, of random sign where they have one.

    table: (14, bins) magnitudes on the host. level: the bin of every operation, or None to draw it.
    """
    count, (height, width) = len(batch.labels), batch.images.shape[2:]
    operations = torch.randint(len(NAMES), (rounds, count), generator=draws.host)
    negative = torch.rand(rounds, count, generator=draws.host) < 0.5
    if level is None:
        magnitudes = table[operations, torch.randint(table.shape[1], (rounds, count), generator=draws.host)]
    else:
        magnitudes = table[operations, level]
    magnitudes = torch.where(negative & SIGNED[operations], -magnitudes, magnitudes)
    matrices = warp_matrices(operations, magnitudes, height, width)

    groups = GROUP[operations]
    order = groups.argsort(stable=True, dim=1)
    device = batch.images.device
    places = send(torch.stack([order, order.argsort(1)]), device)
    magnitudes = send(magnitudes.gather(1, order), device)
    matrices = send(matrices[torch.arange(rounds)[:, None], order], device)

    images = batch.images
    if images.is_floating_point():
        images = images.round().clamp(0, 255).to(torch.uint8)
    for i in range(rounds):
        sizes = torch.bincount(groups[i], minlength=len(OPERATIONS)).tolist()
        parts = torch.split(images.index_select(0, places[0, i]), sizes)
        values = torch.split(magnitudes[i], sizes)
        warps = torch.split(matrices[i], sizes)
        done = [
            operation(part, warps[g] if operation is warp else values[g])
            for g, (operation, part) in enumerate(zip(OPERATIONS, parts))
            if sizes[g]
        ]
        images = torch.cat(done).index_select(0, places[1, i])
    return batch.with_(images=images)
