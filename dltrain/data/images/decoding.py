"""From an image file to a uint8 tensor of a fixed size: the one way, for training, evaluation and prediction.

    file -> decode -> (C, H, W) uint8 of any size -> place -> (C, height, width) uint8 and its extent

Pillow decodes (torchvision's decoders are deprecated, and two decoders would disagree); torch resizes on the
CPU, so that every device sees the same pixels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.images.depth import DARK, dark_colour, is_colour
from dltrain.data.images.opening import checked, explain, is_large_text, opened, quietly, without_texts
from dltrain.data.images.pixels import to_uint8
from dltrain.data.loading.resources import one_thread
from dltrain.data.types import MAX_PIXELS, Canvas, Interpolation

Extent = tuple[int, int]
SPARE = 3
"""How many times larger than needed a JPEG file stays at least if it is decoded at less than its full size: from there
on, Pillow's documentation (Image.resize, reducing_gap) calls the result indistinguishable in most cases."""
FILTERS = {
    "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS,
}  # fmt: skip
"""Pillow's, which shrink as `_resize` does: over all pixels that a new one covers. `nearest` looks at one alone."""
LARGEST_WHOLE, MOST_AROUND = 2**22, 4
"""An image that becomes larger than so many pixels, and than so many times the canvas, only to be cut at its centre, is
not made whole."""
TURNED = (5, 6, 7, 8)
"""The EXIF orientations in which width and height change places."""


def decode(
    path: str | os.PathLike[str], channels: int, canvas: Canvas | None = None, remarks: list[str] | None = None, *,
    whole: bool = False,
) -> Tensor:  # fmt: skip
    """The image file as (channels, H, W) uint8, turned upright as its EXIF tag says.

    channels: 1 for grey, 3 for RGB. Grey, palette and CMYK files are converted, transparency is dropped
    (the stored colours count), 16 bits a value are rounded to 8 by the canvas's `white`, and of an animation the first
    frame is taken.
    canvas: where the image will be placed: a JPEG file much larger than that is decoded at a half, a quarter or an
    eighth of its height and width, still at least `SPARE` times what it gets there, and comes resized for the canvas.
    remarks: takes what there is to say of the values of a file that is read all the same. whole: in the file's own size
    in any case.
    Raises ConfigError when the file cannot be read.
    """
    max_pixels = canvas.max_pixels if canvas is not None else MAX_PIXELS
    try:
        try:
            with opened(path, max_pixels) as image:
                pixels, remark = _pixels(image, channels, canvas, whole)
        except ValueError as error:
            if not is_large_text(error):
                raise
            with quietly, Image.open(BytesIO(without_texts(Path(path).read_bytes()))) as image:
                pixels, remark = _pixels(checked(image, max_pixels), channels, canvas, whole)
    except Exception as error:  # decoders of damaged files raise whatever comes to their mind
        raise ConfigError([explain(path, error)]) from None
    if remark is not None and remarks is not None:
        remarks.append(f"{path}: {remark}")
    return torch.from_numpy(pixels).permute(2, 0, 1)


def pixels_of(image: Image.Image, channels: int, canvas: Canvas) -> Tensor:
    """An image that is open already as (channels, H, W) uint8, as `decode` reads files; it stays as it is.

    Raises ConfigError when it cannot be converted.
    """
    try:
        return torch.from_numpy(_pixels(image.copy(), channels, canvas, True)[0]).permute(2, 0, 1)
    except Exception as error:  # decoders of damaged files raise whatever comes to their mind
        raise ConfigError([explain("the image", error)]) from None


def _pixels(image: Image.Image, channels: int, canvas: Canvas | None, whole: bool) -> tuple[np.ndarray, str | None]:
    """The image as (H, W, C) uint8, and what there is to say of its values."""
    mode, seen = {1: "L", 3: "RGB"}[channels], image
    if canvas is not None and not whole and canvas.interpolation in FILTERS and image.format in {"JPEG", "MPO"}:
        seen = _decoded_less(image, canvas, mode)
    deep_colour = is_colour(image)
    ImageOps.exif_transpose(seen, in_place=True)
    pixels, remark = to_uint8(seen, mode, canvas.white if canvas is not None else None)
    if deep_colour and pixels.max() <= DARK:
        remark = dark_colour(int(pixels.max()))
    return pixels, remark


def _decoded_less(image: Image.Image, canvas: Canvas, mode: str) -> Image.Image:
    """A JPEG file that is not decoded yet in the size that it has on the canvas, not turned upright yet; or as it is,
    where no smaller size that the format offers is enough.

    The format rounds a fraction of the size up, so that the last pixels stand for less of the image than the others.
    Therefore the size on the canvas is that of the whole image, and what is resized is a box with fractions of a pixel.
    """
    whole = image.size
    turned = image.getexif().get(0x0112) in TURNED
    size = _size_on(canvas, *(whole if turned else whole[::-1]))
    size = size if turned else size[::-1]
    offer = image.draft(None, (SPARE * size[0], SPARE * size[1]))
    if offer is None or image.size == whole:
        return image
    box = offer[1]
    return (image if image.mode == mode else image.convert(mode)).resize(size, FILTERS[canvas.interpolation], box)


def place(images: Tensor, canvas: Canvas) -> tuple[Tensor, Extent]:
    """One image (C, H, W), or several of one size (N, C, H, W), uint8, on the canvas.

    Returns the images and (height, width) of the part that they fill.
    """
    images = _sized(images, canvas)
    height, width = images.shape[-2], images.shape[-1]
    if canvas.rule != "fit":
        return images, (height, width)
    placed = images.new_zeros(*images.shape[:-2], canvas.height, canvas.width)
    placed[..., :height, :width] = images
    return placed, (height, width)


def _sized(images: Tensor, canvas: Canvas) -> Tensor:
    """Images (..., C, H, W) in the size that they have on the canvas: all of it, or on a fit canvas at most that."""
    height, width = images.shape[-2:]
    size = _size_on(canvas, height, width)
    if canvas.rule == "fit":
        return _resize(images, size, canvas.interpolation)
    if size[0] * size[1] > max(LARGEST_WHOLE, height * width, MOST_AROUND * canvas.height * canvas.width):
        return _resized_centre(images, size, canvas)
    return _centre(_resize(images, size, canvas.interpolation), (canvas.height, canvas.width))


def _size_on(canvas: Canvas, height: int, width: int) -> Extent:
    """To what size an image is resized for the canvas; by the rule crop, its centre is then cut out."""
    if canvas.rule == "fit":
        shrink = min(1.0, canvas.height / height, canvas.width / width)
        return max(round(height * shrink), 1), max(round(width * shrink), 1)
    if (height, width) == (canvas.height, canvas.width) and canvas.crop == 1:
        return height, width
    return _covering(height, width, canvas)


def blank(count: int, channels: int, canvas: Canvas) -> Tensor:
    """Black images for the canvas: (count, channels, height, width) uint8.

    On a fit canvas the channels of a pixel lie side by side, as decoders give them: on a CPU, crops are resized in
    half the time from there.
    """
    if canvas.rule != "fit":
        return torch.zeros(count, channels, canvas.height, canvas.width, dtype=torch.uint8)
    return torch.zeros(count, canvas.height, canvas.width, channels, dtype=torch.uint8).permute(0, 3, 1, 2)


def _covering(height: int, width: int, canvas: Canvas) -> Extent:
    """The smallest size of the image's shape that covers canvas / crop, rounded as torchvision and timm do."""
    target_h, target_w = (math.floor(side / canvas.crop + 1e-6) for side in (canvas.height, canvas.width))
    if target_h * width >= target_w * height:  # the height is what must grow most
        return target_h, max(int(target_h * width / height), target_w)
    return max(int(target_w * height / width), target_h), target_w


def _centre(images: Tensor, size: Extent) -> Tensor:
    top, left = (round((have - want) / 2) for have, want in zip(images.shape[-2:], size, strict=True))
    return images[..., top : top + size[0], left : left + size[1]]


def _resized_centre(images: Tensor, size: Extent, canvas: Canvas) -> Tensor:
    """The centre for the canvas of images in a size that is never made whole: a thin image would become a thousand
    times as large as what is kept of it. Pillow resizes a box with fractions of a pixel, and looks beyond its edges."""
    height, width = images.shape[-2:]
    top, left = (round((have - want) / 2) for have, want in zip(size, (canvas.height, canvas.width), strict=True))
    down, across = height / size[0], width / size[1]
    box = (left * across, top * down, min((left + canvas.width) * across, width),
           min((top + canvas.height) * down, height))  # fmt: skip
    filter_ = FILTERS.get(canvas.interpolation, Image.Resampling.NEAREST)
    planes = images.reshape(-1, height, width).numpy()
    resized = [Image.fromarray(plane).resize((canvas.width, canvas.height), filter_, box) for plane in planes]
    pixels = torch.from_numpy(np.stack([np.asarray(plane) for plane in resized]))
    return pixels.reshape(*images.shape[:-2], canvas.height, canvas.width)


def _resize(images: Tensor, size: Extent, interpolation: Interpolation) -> Tensor:
    if tuple(images.shape[-2:]) == size:
        return images
    if interpolation == "lanczos":
        return _resize_lanczos(images, size)
    # made a batch as (N, H, W, C), torch sees that the channels of a pixel lie side by side, and keeps them so
    batch = images if images.ndim == 4 else images.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    if interpolation == "nearest":
        resized = interpolate(batch, size=size, mode="nearest-exact")
    else:
        resized = interpolate(batch, size=size, mode=interpolation, align_corners=False, antialias=True)
    return resized if images.ndim == 4 else resized[0]


def _resize_lanczos(images: Tensor, size: Extent) -> Tensor:
    planes = images.reshape(-1, *images.shape[-2:]).numpy()
    resized = [Image.fromarray(p).resize((size[1], size[0]), Image.Resampling.LANCZOS) for p in planes]
    return torch.from_numpy(np.stack([np.asarray(p) for p in resized])).reshape(*images.shape[:-2], *size)


def place_all(images: np.ndarray, canvas: Canvas) -> tuple[Tensor, Extent]:
    """Images (N, C, H, W) uint8 on the canvas: (N, C, height, width) uint8, and the extent of each.

    When none must be resized, the result shares the array's memory.
    """
    pixels = torch.from_numpy(np.require(images, requirements=["C", "W"]))
    first, extent = place(pixels[0], canvas)
    if first.shape == pixels[0].shape and canvas.crop == 1:
        return pixels, extent
    placed = torch.empty(len(pixels), *first.shape, dtype=torch.uint8)
    for start in range(0, len(pixels), 256):
        placed[start : start + 256] = place(pixels[start : start + 256], canvas)[0]
    return placed, extent


def load_files(
    root: str, paths: Sequence[str], channels: int, canvas: Canvas, threads: int = 1
) -> tuple[Tensor, Tensor]:
    """Files below `root` on the canvas: (n, channels, height, width) uint8, and (n, 2) int64 extents.

    Raises ConfigError that names every file that cannot be read.
    """
    images = blank(len(paths), channels, canvas)
    extents = torch.empty(len(paths), 2, dtype=torch.int64)

    def keep(number: int, image: Tensor) -> None:
        height, width = image.shape[1:]
        images[number, :, :height, :width] = image
        extents[number, 0], extents[number, 1] = height, width

    _read(root, paths, channels, canvas, keep, threads)
    return images, extents


def read_files(root: str, paths: Sequence[str], channels: int, canvas: Canvas) -> list[Tensor]:
    """Files below `root` in the size that they have on the canvas, each as (channels, h, w) uint8.

    Raises ConfigError like `load_files`.
    """
    images: dict[int, Tensor] = {}
    _read(root, paths, channels, canvas, images.__setitem__)
    return list(images.values())


def _read(
    root: str, paths: Sequence[str], channels: int, canvas: Canvas, keep: Callable[[int, Tensor], None],
    threads: int = 1,
) -> None:  # fmt: skip
    """Give each file's place in `paths`, and its image as `_sized`, to `keep`."""
    failures: list[Diagnostic] = []

    def load(number: int) -> None:
        try:
            image = _sized(decode(Path(root, paths[number]), channels, canvas), canvas)
        except ConfigError as error:
            failures.extend(error.diagnostics)
        else:
            keep(number, image)

    with one_thread(), quietly:
        if threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(load, range(len(paths))))
        else:
            for number in range(len(paths)):
                load(number)
    if failures:
        raise ConfigError(sorted(failures, key=lambda d: d.message))
