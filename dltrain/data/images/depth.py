"""Image files of more than 8 bits a value: which value is white. Pictures of 12 bits lie in files of 16, and of 32.

The white level is one for a data set, since relative brightness tells classes apart. It is found on the training split,
is a part of its canvas, and so travels in the checkpoint and in packs.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dltrain.data.images.opening import opened, quietly
from dltrain.data.loading.resources import usable_cores
from dltrain.data.types import ImageFiles
from dltrain.errors import Note

BITS = (8, 10, 12, 14, 16)
"""Of values that sensors, scanners and programs give; the smallest that holds all of a data set's is taken."""
LARGEST = 65535
DEEP_SUFFIXES = frozenset((".png", ".tif", ".tiff", ".pgm", ".pnm", ".jp2"))
"""Other formats that are read have 8 bits."""
SAMPLE = 2048
"""Files that are looked at, evenly spaced over the split."""
DARK = 63
"""The upper 8 of 16 bits are at most this, where the value has 14 bits or less."""


@dataclass(frozen=True)
class Depth:
    """What the files of a split hold beyond 8 bits a value.

    white: the value that becomes 255, None when no file has more than 8 bits of grey. grey: the largest value of such
    files. colour: the largest of the upper 8 bits of 16-bit colour files, the only ones that Pillow reads.
    """

    white: int | None = None
    grey: int | None = None
    colour: int | None = None

    @property
    def remarks(self) -> list[Note]:
        """What a person should know of it, one sentence each."""
        found = []
        if self.white is not None:
            bits = self.white.bit_length()
            text = f"image files of 16 or 32 bits hold values up to {self.grey}: read as {bits} bits"
            found.append(Note("info", "depth", f"{text}, 0..{self.white} becomes 0..255"))
        if self.colour is not None and self.colour <= DARK:
            found.append(Note("warning", "depth", dark_colour(self.colour)))
        return found

    def unlike(self, white: int | None) -> list[str]:
        """Warnings where files of this depth are read by the white level of another split."""
        if self.grey is not None and white is not None and self.grey > white:
            return [f"image files hold values up to {self.grey}, those of the training up to {white}: "
                    "what is above is white"]  # fmt: skip
        if self.white is not None and white is None:
            return [f"image files of 16 or 32 bits hold values up to {self.grey}, and the training had no such files: "
                    "write them with 8 bits"]  # fmt: skip
        return []


def depth_of(files: ImageFiles) -> Depth:
    """The depth of a split, by at most 2,048 evenly spaced files. Who reads them all says which cannot be read."""
    names = [name for name in files.paths if Path(name).suffix.lower() in DEEP_SUFFIXES]
    chosen = np.unique(np.linspace(0, len(names) - 1, min(SAMPLE, len(names))).round().astype(np.int64))
    paths = [Path(files.root, names[i]) for i in chosen.tolist()]
    with quietly, ThreadPoolExecutor(usable_cores()) as pool:
        found = list(pool.map(lambda path: _largest(path, files.max_pixels), paths))
    grey = max((value for value, _ in found if value is not None), default=None)
    colour = max((value for _, value in found if value is not None), default=None)
    return Depth(None if grey is None else white_of(grey), grey, colour)


def white_of(largest: int) -> int:
    """The largest value of the smallest usual number of bits that holds `largest`."""
    bits = next((bits for bits in BITS if largest < 2**bits), BITS[-1])
    return int(2**bits - 1)


def _largest(path: Path, max_pixels: int) -> tuple[int | None, int | None]:
    """The largest grey value of a file of more than 8 bits, and the largest of the upper 8 bits of 16-bit colours."""
    try:
        with opened(path, max_pixels) as image:
            if is_grey(image):
                return int(np.asarray(image).max()), None
            if is_colour(image):
                return None, int(np.asarray(image).max())
    except Exception:  # decoders of damaged files raise whatever comes to their mind
        pass
    return None, None


def is_grey(image: Image.Image) -> bool:
    """Whether the image has one channel of 16 or 32 bits."""
    return image.mode.startswith("I")


def is_colour(image: Image.Image) -> bool:
    """Whether a file that is not decoded yet has several channels of 16 bits, of which Pillow reads the upper 8."""
    tiles = getattr(image, "tile", ())  # the last part names the layout, such as `RGB;16B`
    return not is_grey(image) and any(re.search(";16[BLN]", str(tile[3])) for tile in tiles)


def to_bytes(image: Image.Image, white: int | None) -> tuple[np.ndarray, str | None]:
    """A grey image of 16 or 32 bits as (H, W) uint8, and what there is to say of its range.

    white: the value that becomes 255; larger ones do too. None, when there were no such files in the training: files of
    16 bits are taken to use them all, and those of 32 bits, which have no range of their own, as bytes if they can be.
    Raises ValueError for values that are not in 0..65535.
    """
    values = np.asarray(image).astype(np.int64)
    lowest, largest = int(values.min()), int(values.max())
    if lowest < 0 or largest > LARGEST:
        raise ValueError(f"its values are not in 0..{LARGEST}")
    remark = None
    if white is not None:
        if largest > white:
            remark = f"its values go up to {largest}, those of the training's files to {white}: what is above is white"
    else:
        of_bytes = largest < 256 and image.mode == "I" and image.format == "TIFF"
        white = 255 if of_bytes else LARGEST
        if not of_bytes and white_of(largest) < LARGEST:
            remark = f"it has 16 bits a value, and none above {largest}: it is read as dark as that; write it as 8 bits"
    return ((np.minimum(values, white) * 510 + white) // (2 * white)).astype(np.uint8), remark


def dark_colour(largest: int) -> str:
    """What to say of 16-bit colours whose upper 8 bits are at most `largest`."""
    return (f"of colours of 16 bits the upper 8 alone are read, and they are at most {largest} of 255 here: "
            "write the files with 8 bits")  # fmt: skip
