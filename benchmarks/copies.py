"""Which copies of photos are found among their like, and which distinct photos are taken for copies.

    python benchmarks/copies.py FOLDER --every 3

Of every third photo of the folder copies of each kind are made, and each is compared with its photo. Then all photos
are compared with each other: whether those pairs are copies, the eye decides.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from dltrain.data.copies.likeness import Sets, copies, sketch

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def compressed(image: Image.Image, quality: int, form: str = "JPEG") -> Image.Image:
    """The image as it is after it was saved."""
    file = io.BytesIO()
    image.save(file, form, quality=quality)
    return Image.open(file).convert("RGB")


def resized(image: Image.Image, share: float) -> Image.Image:
    """The image with both sides a share of what they were."""
    return image.resize((round(image.width * share), round(image.height * share)), Image.Resampling.BICUBIC)


def cut(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """The image without a share at each edge."""
    width, height = image.size
    return image.crop((round(left * width), round(top * height), round((1 - right) * width),
                       round((1 - bottom) * height)))  # fmt: skip


KINDS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG of quality 50": lambda image: compressed(image, 50),
    "JPEG of quality 20": lambda image: compressed(image, 20),
    "WebP of quality 60": lambda image: compressed(image, 60, "WEBP"),
    "half the size": lambda image: resized(image, 0.5),
    "1.5 times the size, quality 75": lambda image: compressed(resized(image, 1.5), 75),
    "96x96, another shape": lambda image: image.resize((96, 96), Image.Resampling.BICUBIC),
    "brighter by 20 %": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "darker by 20 %": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "20 % more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.2),
    "3 % cut off one edge": lambda image: cut(image, 0, 0.03, 0, 0),
    "2 % cut off each edge": lambda image: cut(image, 0.02, 0.02, 0.02, 0.02),
    "5 % cut off each edge": lambda image: cut(image, 0.05, 0.05, 0.05, 0.05),
}


def found(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two sketches are taken for copies."""
    return bool(list(copies(np.array([one, other]), np.array([0, 1]), Sets(2))))


def main() -> None:
    """Measure, and print a line per kind and a line per pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1)
    args = parser.parse_args()
    paths = sorted(path for path in args.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    photos = [Image.open(path).convert("RGB") for path in paths]
    sketches = np.array([sketch(np.asarray(photo)) for photo in photos])
    chosen = range(0, len(photos), args.every)
    for name, change in KINDS.items():
        hits = [found(sketches[place], sketch(np.asarray(change(photos[place])))) for place in chosen]
        print(f"{name}: {sum(hits)} of {len(hits)} found, {sum(hits) / len(hits):.3f}")
    pairs = list(copies(sketches, np.arange(len(paths)), Sets(len(paths))))
    print(f"{len(pairs)} pairs of {len(paths) * (len(paths) - 1) // 2:,} are taken for copies:")
    for one, other in pairs:
        print(f"  {paths[one]} {paths[other]}")


if __name__ == "__main__":
    main()
