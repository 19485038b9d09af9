"""Erasing and mixing of scaled images: rectangles cut out, examples blended with their neighbours."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dltrain.data.augmentation.impl.geometry import draw_boxes, send
from dltrain.data.random import Draws
from dltrain.data.targets import TargetSpec
from dltrain.data.types import Batch


def boxes(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """(B, 1, H, W) float32, 1 within each example's box (B,) and 0 elsewhere; boxes may cross the border."""
    rows = torch.arange(images.shape[2], device=images.device) - top[:, None]
    columns = torch.arange(images.shape[3], device=images.device) - left[:, None]
    inside_rows = (rows >= 0) & (rows < height[:, None])
    inside_columns = (columns >= 0) & (columns < width[:, None])
    return inside_rows[:, None, :, None].float() * inside_columns[:, None, None, :].float()


def cutout(batch: Batch, draws: Draws, size: int, probability: float) -> Batch:
    """A square of zeros around a centre drawn from all pixels."""
    count, (height, width) = len(batch), batch.inputs.shape[2:]
    sides = draws.chance(probability, count) * size
    centre_row, centre_column = draws.integers(height, count), draws.integers(width, count)
    box = boxes(batch.inputs, centre_row - size // 2, centre_column - size // 2, sides, sides)
    return batch.with_(inputs=batch.inputs * (1 - box))


def random_erasing(
    batch: Batch, draws: Draws, probability: float, area: tuple[float, float], ratio: tuple[float, float], value: float
) -> Batch:
    """A rectangle within the image set to `value`, with the given probability."""
    count, (height, width) = len(batch), batch.inputs.shape[2:]
    chosen = draws.chance(probability, count)
    ones = torch.ones(count, device=batch.inputs.device)
    box_height, box_width, found = draw_boxes(draws, ones * height, ones * width, area, (1 / ratio[1], 1 / ratio[0]))
    down, right = draws.uniform(2, count)
    top = (down * (height - box_height + 1)).floor().clamp(max=height - box_height)
    left = (right * (width - box_width + 1)).floor().clamp(max=width - box_width)
    box = boxes(batch.inputs, top, left, box_height * (found & chosen), box_width)
    erased = batch.inputs * (1 - box)
    return batch.with_(inputs=erased if value == 0 else erased.add_(box, alpha=value))


def mixup(batch: Batch, draws: Draws, alpha: float, probability: float, target: TargetSpec) -> Batch:
    """share x1 + (1 - share) x2 of images and targets, share ~ Beta(alpha, alpha), x2 the example before."""
    share = _shares(draws, alpha, probability, len(batch))
    images = batch.inputs.roll(1, 0).lerp_(batch.inputs, share.view(-1, 1, 1, 1))
    return batch.with_(inputs=images, targets=_mixed(target.soft(batch.targets), share))


def cutmix(batch: Batch, draws: Draws, alpha: float, probability: float, target: TargetSpec) -> Batch:
    """A box of area 1 - share from the example before, share ~ Beta(alpha, alpha).

    The box's centre is uniform, the box is clipped to the image, and the targets are weighted with the share
    of pixels that was really replaced.
    """
    count, (height, width) = len(batch), batch.inputs.shape[2:]
    side = (1 - _shares(draws, alpha, probability, count)).sqrt()
    box_height, box_width = (side * height).floor(), (side * width).floor()
    down, right = draws.uniform(2, count)
    top = (down * height).floor() - (box_height / 2).floor()
    left = (right * width).floor() - (box_width / 2).floor()
    kept = 1 - boxes(batch.inputs, top, left, box_height, box_width)
    images = batch.inputs.roll(1, 0).lerp_(batch.inputs, kept)
    return batch.with_(inputs=images, targets=_mixed(target.soft(batch.targets), kept.mean((1, 2, 3))))


def _shares(draws: Draws, alpha: float, probability: float, count: int) -> Tensor:
    """(B,) float32 ~ Beta(alpha, alpha), and 1 where nothing is to be mixed."""
    # Drawn on the host: torch's seeded gamma sampler is private and not on every device.
    random = np.random.default_rng(int(draws.host.integers(2**31)))
    shares = draws.share.of(torch.from_numpy(random.beta(alpha, alpha, count * draws.share.count).astype(np.float32)))
    return torch.where(draws.chance(probability, count), send(shares, draws.device), 1.0)


def _mixed(targets: Tensor, share: Tensor) -> Tensor:
    return torch.lerp(targets.roll(1, 0), targets, share[:, None])
