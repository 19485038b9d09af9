"""From a decoded image of any mode to bytes of one or three channels. No torch: exported files are served so."""

from __future__ import annotations

import numpy as np
from PIL import Image

from dltrain.data.images.depth import is_grey, to_bytes
from dltrain.data.images.opening import Unfit


def to_uint8(image: Image.Image, mode: str, white: int | None) -> tuple[np.ndarray, str | None]:
    """A decoded image as (H, W, C) uint8 of a mode, `L` or `RGB`, and what there is to say of the range of its values.

    white: as in `depth.to_bytes`. Raises Unfit or ValueError for values whose range is unknown.
    """
    remark = None
    if is_grey(image):  # Pillow's own conversion would clip at 255
        values, remark = to_bytes(image, white)
        image = Image.fromarray(values)
    elif image.mode == "F":
        remedy = "write it with 8 or 16 bits a value, scaled so that all images have one range"
        raise Unfit("cannot be read: its pixels are floating-point numbers, whose range is unknown", remedy)
    elif "transparency" in image.info:
        image = image.convert("RGBA")
    pixels = np.array(image if image.mode == mode else image.convert(mode))  # converting to the same mode copies
    return pixels.reshape(*pixels.shape[:2], -1), remark
