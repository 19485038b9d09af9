"""Folders of image files: which files belong to which class of which split. Reads names, never pixels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.base import FileSource, Parts, Source

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm"))
VALIDATION_NAMES = ("val", "validation", "valid")
LAYOUT = (
    "expected class folders in train/ (and optionally in val/ and test/):",
    "    {root}/train/<class>/<image>.jpg",
    "or class folders alone, which are split:",
    "    {root}/<class>/<image>.jpg",
)


def cache_folder(cache: bool | str) -> Path | None:
    """Where `cache` puts packs of decoded images."""
    if isinstance(cache, str):
        return Path(cache)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "dltrain") if cache else None


def read_folder(root: str, test: float, channels: Literal[1, 3], cache: Path | None = None) -> Parts:
    """The splits below `root`, or one set of class folders with `test` of it held out.

    cache: the folder for packs of decoded images, if they are to be made.
    Raises ConfigError when there are no images, a class is empty, or the splits' classes differ.
    """
    base = Path(root)
    if not base.is_dir():
        raise _error(base, f"there is no folder {base.absolute()}")
    if not _has_splits(base):
        everything, classes = _read_split(base, base, channels, cache)
        return Parts(everything, None, None, classes, test)
    files, classes = _read_split(base, base / "train", channels, cache)
    validation, tested = validation_folder(base), base / "test"
    return Parts(
        files,
        _read_other(base, validation, channels, classes, cache) if validation is not None else None,
        _read_other(base, tested, channels, classes, cache) if tested.is_dir() else None,
        classes,
    )


def given_splits(
    root: str, classes: Sequence[str], channels: Literal[1, 3], cache: Path | None = None
) -> dict[str, tuple[Source, list[str]]]:
    """What is labelled below `root`, by the split, with the names of its classes; class folders alone are `train`.

    A folder with a split's name is that split when it holds a folder with the name of one of `classes`.
    Raises ConfigError when there are no images, or a class folder is empty.
    """
    base = Path(root)
    if not base.is_dir():
        raise _error(base, f"there is no folder {base.absolute()}")
    names = {"train": "train", "test": "test"} | dict.fromkeys(VALIDATION_NAMES, "validation")
    found: dict[str, tuple[Source, list[str]]] = {}
    for folder, split in names.items():
        if (base / folder).is_dir() and set(_class_names(base / folder)) & set(classes):
            source, inside = _read_split(base, base / folder, channels, cache)
            paths = [f"{folder}/{path}" for path in source.paths]
            found[split] = FileSource(str(base), paths, source.labels, channels, cache), inside
    return found or {"train": _read_split(base, base, channels, cache)}


def validation_folder(base: Path) -> Path | None:
    """The folder with the validation split, if there is one. Raises ConfigError when there are two."""
    found = [base / name for name in VALIDATION_NAMES if (base / name).is_dir()] if _has_splits(base) else []
    if len(found) > 1:
        raise _error(base, f"both {found[0]} and {found[1]} could be the validation split; keep one")
    return found[0] if found else None


def _has_splits(base: Path) -> bool:
    """Whether train/ holds class folders: it could also be a class of that name."""
    return (base / "train").is_dir() and bool(_class_names(base / "train"))


def _class_names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith((".", "__MACOSX")))


def _read_split(base: Path, folder: Path, channels: int, cache: Path | None) -> tuple[FileSource, list[str]]:
    classes = _class_names(folder)
    paths: list[str] = []
    labels: list[int] = []
    empty: list[str] = []
    for label, name in enumerate(classes):
        found = _images(folder, name)
        if not found:
            empty.append(name)
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise _error(base, f"there are no images in class folders in {folder.absolute()}")
    if empty:
        raise ConfigError(
            Diagnostic(f"class `{name}` is empty: no image in {folder / name}", notes=(_suffixes(),)) for name in empty
        )
    return FileSource(str(folder), paths, np.array(labels, dtype=np.int64), channels, cache), classes


def _read_other(base: Path, folder: Path, channels: int, classes: list[str], cache: Path | None) -> FileSource:
    source, found = _read_split(base, folder, channels, cache)
    if found != classes:
        unknown, absent = sorted(set(found) - set(classes)), sorted(set(classes) - set(found))
        notes = [f"only in {folder.name}: {', '.join(unknown)}"] if unknown else []
        notes += [f"only in train: {', '.join(absent)}"] if absent else []
        message = f"the classes in {folder} are not those in {base / 'train'}"
        raise ConfigError([Diagnostic(message, notes=notes)])
    return source


def _images(folder: Path, name: str) -> list[str]:
    """Paths of the class's image files relative to `folder`, with forward slashes, sorted."""
    found = []
    for where, folders, files in os.walk(folder / name, followlinks=True):
        folders[:] = [f for f in folders if not f.startswith(".")]
        inside = Path(where).relative_to(folder).as_posix()
        for file in files:
            if not file.startswith(".") and os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122
                found.append(f"{inside}/{file}")
    return sorted(found)


def _suffixes() -> str:
    return f"image files end in {', '.join(sorted(IMAGE_SUFFIXES))}"


def _error(base: Path, message: str) -> ConfigError:
    return ConfigError([Diagnostic(message, notes=[line.format(root=base) for line in LAYOUT])])
