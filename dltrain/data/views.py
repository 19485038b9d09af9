"""Several views of an image, for evaluation: the model's answer is then the mean of its probabilities for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from dltrain.data.canvas import Canvas

Views = Literal["center_crop", "flip", "five_crop", "ten_crop"]
"""center_crop: the image as evaluation sees it. flip: and its mirror image. five_crop: the four corners and the
centre (Krizhevsky et al. 2012). ten_crop: these and their mirror images."""
MARGIN = 16
"""Where evaluation cuts nothing off, crops are of the image padded by reflection by a 16th of its size (2 pixels
of 32, the shifts of airbench's evaluation at most doubled)."""


def views_canvas(canvas: Canvas, views: Views) -> Canvas:
    """The canvas to take the views from: evaluation's, or for crops all that it would have cut off."""
    if views in ("center_crop", "flip") or canvas.rule != "crop" or canvas.crop == 1:
        return canvas
    height, width = round(canvas.height / canvas.crop), round(canvas.width / canvas.crop)
    return replace(canvas, height=height, width=width, crop=1.0)


def views_of(images: Tensor, height: int, width: int, views: Views) -> list[Tensor]:
    """Each view of all images (B, C, H, W), as (B, C, height, width).

    Crops are in the order of torchvision: top left, top right, bottom left, bottom right, centre.
    """
    if views == "center_crop":
        return [images]
    if views == "flip":
        return [images, images.flip(3)]
    if tuple(images.shape[2:]) == (height, width):
        down, right = max(height // MARGIN, 1), max(width // MARGIN, 1)
        images = F.pad(images.float(), (right, right, down, down), mode="reflect")
    bottom, right = images.shape[2] - height, images.shape[3] - width
    middle = round(bottom / 2), round(right / 2)
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), middle]
    crops = [images[:, :, top : top + height, left : left + width] for top, left in places]
    return crops if views == "five_crop" else [*crops, *(crop.flip(3) for crop in _mirrored(crops))]


def _mirrored(crops: list[Tensor]) -> list[Tensor]:
    """The crops whose mirror images are the crops of the mirror image, in their order."""
    top_left, top_right, bottom_left, bottom_right, centre = crops
    return [top_right, top_left, bottom_right, bottom_left, centre]
