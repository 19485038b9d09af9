"""Several views of an image, for evaluation: what is cut out of it, where it lies for that, and what each weighs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from dltrain.data.evaluation import Views
from dltrain.data.types import Canvas, ImageShape, InputSpec

MARGIN = 16
"""Where evaluation cuts nothing off, crops are of the image padded by reflection by a 16th of its size (2 pixels
of 32, twice the shifts of `flip_shift`)."""
SHIFT_WEIGHTS = (0.25, 0.25, 0.125, 0.125, 0.125, 0.125)
"""Of the views of `flip_shift`: a shifted one has half the weight of one that is not."""


def views_layout(layout: Any, views: Views) -> Any:
    """The layout to take the views from: evaluation's, or for crops a canvas with all that it would have cut off."""
    if views not in ("five_crop", "ten_crop") or not isinstance(layout, Canvas):
        return layout
    return _uncut(layout)


def _uncut(canvas: Canvas) -> Canvas:
    if canvas.rule != "crop" or canvas.crop == 1:
        return canvas
    height, width = round(canvas.height / canvas.crop), round(canvas.width / canvas.crop)
    return replace(canvas, height=height, width=width, crop=1.0)


def views_of(images: Tensor, height: int, width: int, views: Views) -> list[Tensor]:
    """Each view of all images (B, C, H, W), as (B, C, height, width).

    Crops are in the order of torchvision: top left, top right, bottom left, bottom right, centre. Of `flip_shift`: the
    image, its mirror image, both shifted up and left, and both shifted down and right.
    """
    if views == "center_crop":
        return [images]
    if views == "flip":
        return [images, images.flip(3)]
    if views == "flip_shift":
        shifted = _padded(images, max(height // (2 * MARGIN), 1), max(width // (2 * MARGIN), 1))
        ends = shifted[:, :, -height:, -width:], shifted[:, :, :height, :width]
        return [view for image in (images, *ends) for view in (image, image.flip(3))]
    if tuple(images.shape[2:]) == (height, width):
        images = _padded(images, max(height // MARGIN, 1), max(width // MARGIN, 1))
    bottom, right = images.shape[2] - height, images.shape[3] - width
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    crops = [images[:, :, top : top + height, left : left + width] for top, left in places]
    crops.append(centre(images, height, width))
    return crops if views == "five_crop" else [*crops, *(crop.flip(3) for crop in _mirrored(crops))]


def central(inputs: Tensor, shape: InputSpec) -> Tensor:
    """Of images (B, C, H, W) the middle, of the size that the network takes; all of anything else."""
    return centre(inputs, shape.height, shape.width) if isinstance(shape, ImageShape) else inputs


def centre(images: Tensor, height: int, width: int) -> Tensor:
    """The middle of images (B, C, H, W), as (B, C, height, width)."""
    top, left = round((images.shape[2] - height) / 2), round((images.shape[3] - width) / 2)
    return images[:, :, top : top + height, left : left + width]


def _padded(images: Tensor, down: int, right: int) -> Tensor:
    """The images with a margin of so many pixels, by reflection."""
    return F.pad(images.float(), (right, right, down, down), mode="reflect")


def _mirrored(crops: list[Tensor]) -> list[Tensor]:
    """The crops whose mirror images are the crops of the mirror image, in their order."""
    top_left, top_right, bottom_left, bottom_right, centre = crops
    return [top_right, top_left, bottom_right, bottom_left, centre]
