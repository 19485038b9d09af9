"""The resize of exported files, bit for bit that of evaluation and of Pillow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from photos import photo
from PIL import Image

from dltrain.data.images.decoding import place
from dltrain.data.types import Canvas, Interpolation
from dltrain.export.resampling import Resample

SIZES = [(72, 96), (31, 200), (200, 31), (64, 64), (20, 17), (250, 333), (1, 40)]
CANVASES = [(48, 48, 1.0), (56, 40, 0.875), (96, 96, 0.9)]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
def test_pixels_are_those_of_evaluation(interpolation: Interpolation) -> None:
    """Of a hundred thousand values, a handful may be one off: where a sum is exactly half of a unit."""
    values = other = 0
    for number, (height, width) in enumerate(SIZES):
        image = torch.from_numpy(np.asarray(photo(number, width, height)).copy())
        for rows, columns, crop in CANVASES:
            canvas = Canvas(rows, columns, "crop", interpolation, crop)
            seen = place(image.permute(2, 0, 1), canvas)[0].float()
            found = Resample(canvas)(image[None])
            assert found.shape == (1, 3, rows, columns)
            difference = (found[0] - seen).abs()
            assert difference.max() <= 1, (height, width, canvas)
            values, other = values + difference.numel(), other + int((difference > 0).sum())
    assert values > 100_000 and other <= 1e-4 * values


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_pixels_are_those_of_pillow(interpolation: Interpolation) -> None:
    for number, (height, width) in enumerate(SIZES):
        image = photo(number, width, height)
        canvas = Canvas(40, 40, "crop", interpolation, 0.875)
        least = math.floor(40 / 0.875 + 1e-6)
        new = max(int(least * width / height), least), max(int(least * height / width), least)
        whole = np.asarray(image.resize(new, Image.Resampling[interpolation.upper()]))
        top, left = round((new[1] - 40) / 2), round((new[0] - 40) / 2)
        wanted = torch.from_numpy(whole[top : top + 40, left : left + 40].astype(np.float32)).permute(2, 0, 1)
        found = Resample(canvas)(torch.from_numpy(np.asarray(image).copy())[None])[0]
        difference = (found - wanted).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 0.05


def test_images_in_their_own_size_stay_as_they_are() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 20, 24, 1), dtype=np.uint8))
    for interpolation in ("bilinear", "bicubic", "lanczos", "nearest"):
        found = Resample(Canvas(20, 24, "exact", interpolation))(images)  # type: ignore[arg-type]
        assert torch.equal(found, images.permute(0, 3, 1, 2).float())


def test_a_thin_image_takes_no_memory_for_what_is_cut_off() -> None:
    """Whole, it would become 64 x 2,560,000 pixels."""
    image = torch.zeros(1, 1, 40_000, 3, dtype=torch.uint8)
    assert Resample(Canvas(64, 64, "crop"))(image).shape == (1, 3, 64, 64)
