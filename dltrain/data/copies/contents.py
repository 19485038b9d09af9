"""What examples hold: a digest of their bytes, a digest of their pixels, and how they look.

Each file is read once. What was found is remembered in one small file a folder, under the cache folder, and is used as
long as the file's size, times and inode are the same. That file is written beside its place and then renamed; when it
is gone, damaged or cannot be written, images are read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import __version__ as pillow

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.copies.likeness import SIDE, SKETCH, sketch
from dltrain.data.images.decoding import decode
from dltrain.data.images.depth import DEEP_SUFFIXES, is_colour, is_grey
from dltrain.data.images.opening import Unfit, explain, opened, quietly, require_readable
from dltrain.data.loading.resources import cache_folder, usable_cores
from dltrain.data.types import Canvas, ImageFiles

CONTENT = np.dtype([("bytes", "u1", (16,)), ("pixels", "u1", (16,)), ("blank", "?"), ("sketch", SKETCH)])
"""bytes, pixels: blake2b digests; pixels is that of the bytes where images are not decoded, or not wholly. blank:
whether all pixels are equal."""
ENTRY = np.dtype([
    ("size", "<i8"), ("modified", "<i8"), ("changed", "<i8"), ("inode", "<u8"), ("seen", "?"), ("content", CONTENT),
])  # fmt: skip
"""A file's state (times in nanoseconds), whether it was decoded, and its content."""
MAGIC = b"dltrain contents 2\n"
SETTLED = 2_000_000_000
"""Nanoseconds after which a file's times tell that it has changed: clocks of file systems are as coarse as that."""
LOOKED_AT = 128
"""The side in pixels for which files are decoded: large JPEG files at a fraction of their size."""


def keys(found: np.ndarray) -> np.ndarray:
    """(N,) the digests of the bytes as 32 hexadecimal digits."""
    return np.array([row.tobytes().hex() for row in found["bytes"]], dtype="S32")


def _digest(data: bytes) -> np.ndarray:
    return np.frombuffer(hashlib.blake2b(data, digest_size=16).digest(), np.uint8)


def of_images(images: np.ndarray, look: bool) -> np.ndarray:
    """(N,) CONTENT of images (N, C, H, W) uint8. look: whether they are sketched, if they are large enough."""
    found = np.zeros(len(images), CONTENT)
    channels, *sides = images.shape[1:]
    found["blank"] = images.min((1, 2, 3)) == images.max((1, 2, 3))
    for row, image in zip(found, images):
        row["bytes"] = _digest(image.tobytes())
        if look and min(sides) >= SIDE and channels in (1, 3):
            row["sketch"] = sketch(image.transpose(1, 2, 0))
    found["pixels"] = found["bytes"]
    return found


def of_files(files: ImageFiles, *, look: bool) -> np.ndarray:
    """(N,) CONTENT of files. look: whether pictures are decoded, and sketched if they are large enough.

    Raises ConfigError naming the files that are empty or cannot be read; one that is no image is known by its bytes.
    """
    if not len(files):
        return np.zeros(0, CONTENT)
    return np.ascontiguousarray(_entries(files, look)["content"])


def unreadable(files: ImageFiles) -> dict[int, Diagnostic]:
    """By its place, what is wrong with each file that cannot be read. Files that are not known are decoded."""
    bad: dict[int, Diagnostic] = {}
    for row, path in enumerate(files.paths):
        file = Path(files.root, path)
        try:
            require_readable(file)
        except (OSError, Unfit) as error:
            bad[row] = explain(file, error)
    rows = np.setdiff1d(np.arange(len(files)), list(bad))
    if not len(rows):
        return bad
    canvas = Canvas(LOOKED_AT, LOOKED_AT, "crop", max_pixels=files.max_pixels)
    for row in rows[~_entries(files.at(rows), look=True)["seen"]].tolist():
        try:
            decode(Path(files.root, files.paths[row]), files.channels, canvas)
        except ConfigError as error:
            bad[row] = error.diagnostics[0]
    return dict(sorted(bad.items()))


def _entries(files: ImageFiles, look: bool) -> np.ndarray:
    """(N,) ENTRY of files, those that are not known read."""
    entries = _states(files)
    memory = _Memory(files)
    if missing := memory.recall(files.paths, entries, look):
        with memory.lock():  # another process may read the same files now
            missing = memory.recall(files.paths, entries, look)
            with quietly, ThreadPoolExecutor(usable_cores()) as pool:
                list(pool.map(lambda row: _read(files, row, entries[row : row + 1], look), missing))
            if missing:
                memory.keep(files.paths, entries)
    return entries


def _states(files: ImageFiles) -> np.ndarray:
    """(N,) ENTRY without content. Raises ConfigError naming the files that are empty or cannot be read."""
    entries, failures = np.zeros(len(files), ENTRY), []
    for row, path in enumerate(files.paths):
        file = Path(files.root, path)
        try:
            state = file.stat()
        except OSError as error:
            failures.append(Diagnostic(f"{file} cannot be read: {error.strerror}"))
            continue
        if not state.st_size:
            failures.append(Diagnostic(f"the image file {file} is empty (0 bytes)"))
        for name, value in _state(state).items():
            entries[name][row] = value
    if failures:
        raise ConfigError(failures)
    return entries


def _state(state: os.stat_result) -> dict[str, int]:
    return {
        "size": state.st_size, "modified": state.st_mtime_ns, "changed": state.st_ctime_ns,
        "inode": state.st_ino % 2**64,
    }  # fmt: skip


def _read(files: ImageFiles, row: int, entry: np.ndarray, look: bool) -> None:
    """Fill in the content of a file. entry: (1,)."""
    file = Path(files.root, files.paths[row])
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError([Diagnostic(f"{file} cannot be read: {error.strerror}")]) from None
    content = entry["content"]
    content["bytes"] = content["pixels"] = _digest(data)
    if not look:
        return
    try:
        pixels, exact = _pixels(file, files)
    except Exception:  # what decoders of damaged files raise; whoever wants the image says what is wrong
        content["pixels"] = _digest(os.fsencode(file))  # equal to no other
        return
    content["sketch"] = sketch(pixels)
    content["blank"] = pixels.min() == pixels.max()
    if exact is not None:
        content["pixels"] = _digest(str(exact.shape).encode() + exact.tobytes())
    entry["seen"] = True


def _pixels(file: Path, files: ImageFiles) -> tuple[np.ndarray, np.ndarray | None]:
    """The picture (H, W, C) uint8, and the values by which it is equal to others; None when they cannot be had."""
    deep = False
    if file.suffix.lower() in DEEP_SUFFIXES:
        with opened(file, files.max_pixels) as image:
            if is_grey(image):
                values = np.asarray(image).astype(np.int64)
                return (values * (255 / max(values.max(), 1))).clip(0, 255).astype(np.uint8)[..., None], values
            deep = is_colour(image)  # of which Pillow reads the upper 8 bits alone
    canvas = Canvas(LOOKED_AT, LOOKED_AT, "crop", max_pixels=files.max_pixels)
    pixels = decode(file, files.channels, canvas).permute(1, 2, 0).numpy()
    return pixels, None if deep else pixels


class _Memory:
    """The file with what is known of the files below a root."""

    def __init__(self, files: ImageFiles) -> None:
        root = Path(files.root).resolve()
        about = repr((os.fsencode(root), files.channels, files.max_pixels, pillow))
        name = f"{root.name}-{hashlib.blake2b(about.encode(), digest_size=8).hexdigest()}.contents"
        self.path = (files.cache or cache_folder(True) or Path()) / name

    def recall(self, paths: Sequence[str], entries: np.ndarray, look: bool) -> list[int]:
        """Fill in the contents that are known; the places of the others."""
        known_paths, known = self._load()
        places = {path: place for place, path in enumerate(known_paths)}
        rows = np.array([places.get(path, -1) for path in paths], dtype=np.int64)
        found = rows >= 0
        if len(known):
            for field in ("size", "modified", "changed", "inode"):
                found &= known[field][rows] == entries[field]
            if look:
                found &= known["seen"][rows]
            entries[found] = known[rows[found]]
        return [int(row) for row in np.flatnonzero(~found)]

    def keep(self, paths: Sequence[str], entries: np.ndarray) -> None:
        """Remember the contents, where they cannot have changed unnoticed since they were read."""
        settled = np.flatnonzero(entries["changed"] < time.time_ns() - SETTLED).tolist()
        if not settled:
            return
        known_paths, known = self._load()
        together = {**dict(zip(known_paths, known)), **{paths[row]: entries[row] for row in settled}}
        names = b"\0".join(os.fsencode(path) for path in together)
        body = len(names).to_bytes(8, "little") + names + np.array(list(together.values()), ENTRY).tobytes()
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(MAGIC + _digest(body).tobytes() + body)
                temporary.replace(self.path)
            finally:
                temporary.unlink(missing_ok=True)

    def _load(self) -> tuple[list[str], np.ndarray]:
        """What is known: the paths and (n,) ENTRY; nothing when the file is damaged."""
        start = len(MAGIC) + 16
        try:
            data = self.path.read_bytes()
        except OSError:
            return [], np.zeros(0, ENTRY)
        body = data[start:]
        if data[:start] != MAGIC + _digest(body).tobytes():
            return [], np.zeros(0, ENTRY)
        end = 8 + int.from_bytes(body[:8], "little")
        names = [os.fsdecode(name) for name in body[8:end].split(b"\0")]
        if len(body) != end + len(names) * ENTRY.itemsize:  # a digest does not say that it holds what it should
            return [], np.zeros(0, ENTRY)
        return names, np.frombuffer(body, ENTRY, offset=end)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Held while files are read, if that is possible: who waits finds them read."""
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError, NotImplementedError):  # filelock's, of file systems without locks
                self.path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(FileLock(self.path.with_suffix(".lock")))
            yield
