"""How much the pixels of JPEG files change that are decoded at a half, a quarter or an eighth of their size.

    python benchmarks/jpeg_fractions.py FOLDER --sizes 32 96 224
    python benchmarks/jpeg_fractions.py FOLDER --sizes 96 224 --enlarge

Every photo of the folder is cut to squares of the sizes, from the fraction and from the whole, and compared.
`--enlarge` makes photos that are too small for a fraction large enough first.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dltrain.data.images.decoding import SPARE, decode, place
from dltrain.data.types import Canvas

SUFFIXES = {".jpg", ".jpeg"}


def photos(folder: Path, size: int, copy: Path | None) -> Iterator[Path]:
    """The photos of which a fraction is decoded; with `copy`, each enlarged in that file until it is so."""
    least = 2 * SPARE * size
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        with Image.open(path) as image:
            if min(image.size) >= least:
                yield path
            elif copy is not None:
                by = 1.05 * least / min(image.size)
                larger = (round(by * image.width), round(by * image.height))
                image.convert("RGB").resize(larger, Image.Resampling.LANCZOS).save(copy, quality=92)
                yield copy


def change(path: Path, canvas: Canvas) -> tuple[float, int]:
    """The mean and the largest change of a pixel's values, of 255."""
    fraction, whole = (place(decode(path, 3, given), canvas)[0].int() for given in (canvas, None))
    difference = (fraction - whole).abs()
    return float(difference.float().mean()), int(difference.max())


def main() -> None:
    """Measure, and print a line per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 96, 224])
    parser.add_argument("--enlarge", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for size in args.sizes:
            canvas = Canvas(size, size, "crop")
            copy = Path(scratch, "enlarged.jpg") if args.enlarge else None
            found = np.array([change(path, canvas) for path in photos(args.folder, size, copy)]).reshape(-1, 2)
            if not len(found):
                print(f"{size} pixels: no photo is large enough")
                continue
            mean, photo, value = found[:, 0].mean(), found[:, 0].max(), found[:, 1].max()
            print(f"{size} pixels, {len(found)} photos: mean {mean:.2f}, worst photo {photo:.2f}, value {value:.0f}")


if __name__ == "__main__":
    main()
