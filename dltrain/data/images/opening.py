"""Opening image files with Pillow: what is not opened, how large an image may be, and what to say of one that is unfit.

Pillow's own guard against decompression bombs has one limit for the whole process, and warns from half of it; here the
limit is an option. Its warnings about odd metadata are left out: the pixels are read, or an error is raised.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from PIL import Image, UnidentifiedImageError

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.folders.listing import broken, reason
from dltrain.data.types import MAX_PIXELS

SPECIAL = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip
TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
"""PNG chunks that do not change the pixels, and that Pillow refuses when they are large."""
BEGINNINGS = (
    (b"version https://git-lfs", "it is a Git LFS pointer: fetch the files themselves with `git lfs pull`"),
    (b"<", "it holds a web page or other markup, such as an error instead of a download: fetch the image again"),
    (b"PK\3\4", "it is a zip archive: unpack it"), (b"%PDF", "it is a PDF document: export its pages as images"),
)  # fmt: skip
DELETE = "delete the file, or replace it by an undamaged one"


class Unfit(Exception):
    """A file that is not opened or decoded; the message goes after its name. remedy: what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class _Quiet:
    """What Pillow would say and refuse, held back while any thread reads: both are settings of the whole process."""

    def __init__(self) -> None:
        self.lock, self.readers, self.held = Lock(), 0, contextlib.ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            if not self.readers:
                self.held.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self.held.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
                Image.MAX_IMAGE_PIXELS = None
            self.readers += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.readers -= 1
            if not self.readers:
                self.held.close()


quietly = _Quiet()
"""Held around whatever opens images, and around threads that do: it is begun once, by the first."""


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The image in a file, not decoded yet. Raises Unfit, or what Pillow and the operating system come up with."""
    require_readable(path)
    with quietly, Image.open(path) as image:
        yield checked(image, max_pixels)


def require_readable(path: str | os.PathLike[str]) -> None:
    """Raise Unfit or OSError for what is no file with content that may be read; it is not opened for that."""
    state = Path(path).stat()
    if kind := next((name for test, name in SPECIAL if test(state.st_mode)), None):
        raise Unfit(f"is {kind}, which is never opened", "give image files, or folders of them")
    if not state.st_size:
        raise Unfit("is empty (0 bytes)", "fetch it again, or delete it")
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))


def checked(image: Image.Image, max_pixels: int) -> Image.Image:
    """The image. Raises Unfit when it has more pixels than that."""
    if (pixels := image.width * image.height) > max_pixels:
        message = f"has {pixels:,} pixels, more than the {max_pixels:,} of `data.max_pixels`"
        raise Unfit(message, f"if it is what it should be, write `max_pixels: {pixels}` in `data`, or make it smaller")
    return image


def is_large_text(error: Exception) -> bool:
    """Whether Pillow refused a PNG file for the size of its texts or its colour profile."""
    return isinstance(error, ValueError) and ("MAX_TEXT_CHUNK" in str(error) or "text chunks" in str(error))


def without_texts(data: bytes) -> bytes:
    """A PNG file without texts and colour profile, but those that may say how it is turned."""
    kept, start = [data[:8]], 8
    while start + 8 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        kind, turns = data[start + 4 : start + 8], data[start + 8 :].startswith((b"Raw profile", b"XML:com.adobe"))
        if kind not in TEXTS or (turns and end - start < 2**18):
            kept.append(data[start:end])
        start = end
    return b"".join(kept)


def explain(path: str | os.PathLike[str], error: Exception) -> Diagnostic:
    """What is wrong with an image file that could not be read, and what to do about a file of this kind."""
    name = f"the image file {os.fspath(path)}"
    if isinstance(error, Unfit):
        return Diagnostic(f"{name} {error}", notes=(error.remedy,))
    if isinstance(error, FileNotFoundError):
        link = Path(path).is_symlink()
        return Diagnostic(broken(path) if link else f"there is no file {os.fspath(path)}")
    if isinstance(error, UnidentifiedImageError):
        return Diagnostic(f"{name} is not an image", notes=(_instead(path),))
    if isinstance(error, PermissionError):
        what = f"the folder {os.fspath(path)}" if Path(path).is_dir() else name
        return Diagnostic(f"{what} cannot be read: {reason(error)}", notes=("give this user the right to read it",))
    if isinstance(error, MemoryError):
        return Diagnostic(f"{name} does not fit into memory", notes=("make it smaller",))
    if isinstance(error, OSError) and error.strerror:
        return Diagnostic(f"{name} cannot be read: {reason(error)}")
    if "truncated" in str(error) or "incomplete" in str(error):
        return Diagnostic(f"{name} is cut short: {error}", notes=("fetch it again, or delete it",))
    return Diagnostic(f"{name} cannot be read: {error or type(error).__name__}", notes=(DELETE,))


def _instead(path: str | os.PathLike[str]) -> str:
    """What to do about a file that is no image, by how it begins."""
    try:
        with Path(path).open("rb") as file:
            begin = file.read(64)
    except OSError:
        return DELETE
    if begin[4:8] == b"ftyp":
        kind = begin[8:12].decode("ascii", "replace").strip()
        return f"it is a {kind} file, which Pillow does not read here: convert it to JPEG or PNG"
    return next((remedy for first, remedy in BEGINNINGS if begin.lstrip().startswith(first)), DELETE)


def size_of(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of an image file as its head tells them, in pixels. Raises ConfigError where it tells none."""
    try:
        with quietly, Image.open(path) as image:
            width, height = image.size
            return width, height
    except Exception as error:  # decoders of damaged files raise whatever comes to their mind
        raise ConfigError([explain(path, error)]) from None
