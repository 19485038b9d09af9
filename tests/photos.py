"""Pictures with the detail of photos, made up; and what happens to pictures on their way through the world."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance


def photo(number: int, width: int = 96, height: int = 72) -> Image.Image:
    """The picture of a number: blots of colour of many sizes."""
    random = np.random.default_rng(number)
    pixels = np.zeros((height, width, 3), np.float32)
    for size in (3, 6, 12, 24, 48):
        rough = Image.fromarray(random.integers(0, 256, (size, size, 3), dtype=np.uint8))
        layer = np.asarray(rough.resize((width, height), Image.Resampling.BICUBIC), np.float32) - 128
        pixels += layer * (4 / size) ** 0.5
    return Image.fromarray((pixels * 0.6 + 128).clip(0, 255).astype(np.uint8))


def cut(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((round(0.02 * width), round(0.03 * height), round(0.98 * width), height))


def make_photos(folder: Path, classes: int = 3, images: int = 8) -> Path:
    """JPEG files of mixed sizes in class folders below `folder`/train."""
    random = np.random.default_rng(0)
    for label in range(classes):
        (folder / "train" / f"class_{label}").mkdir(parents=True)
        for number in range(images):
            height, width = random.integers(40, 90, 2)
            pixels = random.integers(0, 120, (height, width, 3)) + 60 * label
            path = folder / "train" / f"class_{label}" / f"{number}.jpg"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


COPIES: dict[str, Callable[[Image.Image, Path], None]] = {
    "lossless.webp": lambda image, path: image.save(path, lossless=True),
    "same.bmp": lambda image, path: image.save(path),
    "again.png": lambda image, path: image.save(path, compress_level=0),
    "poor.jpg": lambda image, path: image.save(path, quality=40),
    "small.jpg": lambda image, path: image.resize((48, 36), Image.Resampling.LANCZOS).save(path, quality=80),
    "large.jpg": lambda image, path: image.resize((960, 720), Image.Resampling.BICUBIC).save(path, quality=90),
    "bright.png": lambda image, path: ImageEnhance.Brightness(image).enhance(1.15).save(path),
    "cut.png": lambda image, path: cut(image).save(path),
}
"""File names, and how a picture becomes a copy of itself."""


def write_photos(root: Path, classes: list[str], each: int, start: int = 0) -> Path:
    """Class folders of distinct pictures."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            photo(1000 * label + start + number).save(root / name / f"{start + number:03d}.png")
    return root
