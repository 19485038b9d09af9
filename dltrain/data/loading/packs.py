"""Packs: the images of a folder, decoded and placed on a canvas once, in a file that is mapped into memory.

    <magic> <length of the header> <header: JSON> <extents (N, 2) int64> <images (N, H, W, C) or (N, C, H, W) uint8>

A pack belongs to its files by their names and their bytes, and is made anew when one of these is different.
It is written beside its place and then renamed, under a lock: any number of processes may want it at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.copies.contents import of_files
from dltrain.data.images.decoding import load_files
from dltrain.data.loading.resources import size, usable_cores
from dltrain.data.types import Canvas, ImageFiles

MAGIC = b"dltrain pack 3\n"
CHUNK = 512
"""Images that are decoded between two writes."""


@dataclass(frozen=True)
class Pack:
    """The images of files on a canvas. images: (N, C, H, W) uint8, mapped; extents: (N, 2) int64."""

    path: Path
    images: Tensor
    extents: Tensor

    def read(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The images and extents at indices (B,) int64, copied: (B, C, H, W) uint8 and (B, 2) int64."""
        if self.images.stride(1) == 1:  # the channels of a pixel lie side by side
            return self.images.permute(0, 2, 3, 1).index_select(0, indices).permute(0, 3, 1, 2), self.extents[indices]
        return self.images.index_select(0, indices), self.extents[indices]


def pack_path(files: ImageFiles, canvas: Canvas) -> Path:
    """Where the pack of files with a `cache` lies."""
    assert files.cache is not None
    folder = Path(files.root).resolve()
    about = json.dumps([str(folder), files.channels, asdict(canvas), files.paths])
    return files.cache / f"{folder.name}-{hashlib.blake2b(about.encode(), digest_size=8).hexdigest()}.pack"


def packed(files: ImageFiles, canvas: Canvas) -> Pack:
    """The pack of files with a `cache`, made if it is not there or no longer fits.

    Raises ConfigError naming the files that cannot be read, or the cache that cannot be written.
    """
    for _ in make_pack(files, canvas):
        pass
    found: Pack = files.packs[canvas]
    return found


def make_pack(files: ImageFiles, canvas: Canvas) -> Iterator[int]:
    """Make `files.packs[canvas]`, yielding how many of its images have been decoded; nothing when it is there.

    Raises ConfigError like `packed`.
    """
    if canvas in files.packs:
        return
    path, header = pack_path(files, canvas), _header(files, canvas)
    if (pack := _opened(path, header)) is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                pack = _opened(path, header)  # another process may have made it meanwhile
                if pack is None:
                    yield from _write(path, header, files, canvas)
                    pack = _opened(path, header)
        except OSError as error:
            raise _unwritable(path, header, error) from None
    assert pack is not None
    files.packs[canvas] = pack


def _header(files: ImageFiles, canvas: Canvas) -> dict[str, object]:
    """What the pack must say of itself to be that of these files on this canvas."""
    digest = hashlib.blake2b(of_files(files, look=False)["bytes"].tobytes(), digest_size=16)
    pixels = [canvas.height, canvas.width]
    shape = [*pixels, files.channels] if canvas.rule == "fit" else [files.channels, *pixels]
    return {"canvas": asdict(canvas), "files": digest.hexdigest(), "shape": [len(files), *shape]}


def _layout(header: dict[str, object]) -> tuple[bytes, tuple[int, ...], int, int]:
    """The first bytes of the file, the shape of its images, where they begin, and the length of the file."""
    text = json.dumps(header).encode()
    first = MAGIC + len(text).to_bytes(4, "little") + text
    first += bytes(-len(first) % 64)
    shape: tuple[int, ...] = tuple(header["shape"])  # type: ignore[arg-type]
    begin = len(first) + 16 * shape[0]
    return first, shape, begin, begin + int(np.prod(shape))


def _opened(path: Path, header: dict[str, object]) -> Pack | None:
    """The pack, if it is there, whole, and says what it must."""
    first, shape, begin, length = _layout(header)
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != length or file.read(len(first)) != first:
                return None
    except OSError:
        return None
    data = torch.from_file(str(path), shared=False, size=length, dtype=torch.uint8)
    images = data[begin:].view(shape)
    extents = data[len(first) : begin].view(torch.int64).view(-1, 2)
    if bool((extents < 1).any()) or bool((extents > torch.tensor(_sides(header))).any()):
        return None
    return Pack(path, images.permute(0, 3, 1, 2) if header["canvas"]["rule"] == "fit" else images, extents)  # type: ignore[index]


def _sides(header: dict[str, object]) -> list[int]:
    """The height and width of the canvas."""
    canvas: dict[str, int] = header["canvas"]  # type: ignore[assignment]
    return [canvas["height"], canvas["width"]]


def _write(path: Path, header: dict[str, object], files: ImageFiles, canvas: Canvas) -> Iterator[int]:
    first, shape, begin, length = _layout(header)
    if shutil.disk_usage(path.parent).free < length:
        raise OSError(f"{size(shutil.disk_usage(path.parent).free)} are free")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    extents = []
    try:
        with temporary.open("wb") as file:
            file.write(first)
            file.seek(begin)
            for start in range(0, shape[0], CHUNK):
                part = files.paths[start : start + CHUNK]
                images, sizes = load_files(files.root, part, files.channels, canvas, usable_cores())
                extents.append(sizes)
                file.write((images.permute(0, 2, 3, 1) if canvas.rule == "fit" else images).numpy().data)
                yield start + len(part)
            file.seek(len(first))
            file.write(torch.cat(extents).numpy().data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _unwritable(path: Path, header: dict[str, object], error: OSError) -> ConfigError:
    need = size(_layout(header)[3])
    message = f"the cache {path} cannot be written: {error.strerror.lower() if error.strerror else error}"
    return ConfigError([Diagnostic(message, notes=(f"it takes {need}; `cache: FOLDER` puts it elsewhere",))])
