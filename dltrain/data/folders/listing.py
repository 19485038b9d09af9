"""What lies below a folder, for `fit`, `init` and `predict` alike: names and kinds, nothing is opened.

    folder -> files before the folders beside them, both in order of their names -> images, and what is left out

A real folder is entered once, so links that go round end; and no link leads up to a folder that contains this one.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Identity = tuple[int, int]
"""Device and inode of a folder: what it is, whatever it is called."""
HIDDEN = (".", "__MACOSX")
"""What hidden files and folders begin with."""
ONLY_NAMED = frozenset(("BUFR", "GRIB", "HDF5", "WMF", "MPEG", "EPS"))
"""Formats that Pillow knows by name and does not decode by itself."""


@cache
def image_suffixes() -> frozenset[str]:
    """The endings, in lower case and with their dot, of the files that the installed Pillow reads."""
    from PIL import Image

    registered = Image.registered_extensions()
    read = {*Image.OPEN, "MPO"} - ONLY_NAMED  # MPO is opened as JPEG
    return frozenset(suffix for suffix, form in registered.items() if form in read)


def is_image(name: str) -> bool:
    """Whether the name ends like that of an image."""
    return suffix_of(name) in image_suffixes()


def suffix_of(name: str) -> str:
    """`.jpg` of `A.JPG`; empty where there is none."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


@dataclass(frozen=True)
class Entry:
    """A thing in a folder. kind: `special` is a pipe, socket or device, `again` a folder that was entered already, or
    contains the one where the walk began. reason: why a `fault` cannot be seen."""

    path: str
    kind: Literal["file", "folder", "special", "again", "fault"]
    reason: str = ""

    @property
    def name(self) -> str:
        return os.path.basename(self.path)  # noqa: PTH119


def scan(folder: str) -> list[Entry]:
    """What lies in a folder itself, in order of names, without what is hidden. Raises OSError."""
    with os.scandir(folder) as found:
        return sorted((_entry(one) for one in found if not one.name.startswith(HIDDEN)), key=lambda e: e.path)


def _entry(found: os.DirEntry[str]) -> Entry:
    try:
        if found.is_dir():
            return Entry(found.path, "folder")
        if found.is_file():
            return Entry(found.path, "file")
        if found.is_symlink():
            return Entry(found.path, "fault", broken(found.path))
    except OSError as error:
        return Entry(found.path, "fault", f"{found.path} cannot be read: {reason(error)}")
    return Entry(found.path, "special")


def broken(path: str | os.PathLike[str]) -> str:
    """What to say of a link without a target."""
    return f"the link {os.fspath(path)} leads nowhere: there is no {os.readlink(path)}"  # noqa: PTH115


def url_in(path: str | os.PathLike[str]) -> str | None:
    """The URL that was given as a path, where it is one; paths make one slash of two."""
    found = re.match(r"([a-z][a-z\d+.-]+):/+", text := os.fspath(path), re.IGNORECASE)
    return f"{found[1]}://{text[found.end() :]}" if found else None


def reason(error: OSError) -> str:
    """Why the operating system refused, in lower case."""
    return (error.strerror or str(error)).lower()


def identity(folder: str | os.PathLike[str]) -> Identity:
    """What a folder is. Raises OSError."""
    state = Path(folder).stat()
    return state.st_dev, state.st_ino


def ancestors(folder: str | os.PathLike[str]) -> set[Identity]:
    """The folders that contain a folder, up to the root, as far as they can be seen."""
    found = set()
    for parent in Path(os.path.realpath(folder)).parents:
        try:
            found.add(identity(parent))
        except OSError:
            continue
    return found


def walk(folder: str, closed: Iterable[Identity] = ()) -> Iterator[Entry]:
    """Everything below a folder but the folders that are entered. closed: folders that are not entered either.

    A folder that cannot be read is a `fault`, the given one too.
    """
    entered = {*closed, *ancestors(folder)}
    waiting = [folder]
    while waiting:
        where = waiting.pop()
        try:
            known = identity(where)
            if known in entered:
                yield Entry(where, "again")
                continue
            entered.add(known)
            found = scan(where)
        except OSError as error:
            yield Entry(where, "fault", f"the folder {where} cannot be read: {reason(error)}")
            continue
        yield from (entry for entry in found if entry.kind != "folder")
        waiting += [entry.path for entry in reversed(found) if entry.kind == "folder"]


def counted(suffixes: Counter[str]) -> str:
    """Files by their suffix: `12 .txt, 1 without a suffix`."""
    most = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in most)
