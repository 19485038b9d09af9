"""Folders of image files: which files belong to which class of which split. Reads names, never pixels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.folders.layouts import (
    beside,
    class_folders,
    layout_of,
    left_out,
    require_root,
    spelling,
    subfolders,
    unfit,
)
from dltrain.data.folders.listing import Identity, ancestors, counted, identity, is_image, suffix_of, walk
from dltrain.data.folders.split_names import Split, splits_among
from dltrain.data.sources import FileSource
from dltrain.data.targets import Classes
from dltrain.data.types import MAX_PIXELS, ImageFiles, RawDataset, Source
from dltrain.errors import Note

SHOWN = 10
"""Kinds of files that a message about an empty class names."""


def read_folder(
    root: str, test: float, channels: Literal[1, 3], cache: Path | None = None, max_pixels: int = MAX_PIXELS
) -> RawDataset:
    """The splits below `root`, or one set of class folders with `test` of it held out.

    cache: the folder for packs of decoded images, if they are to be made. max_pixels: larger files are refused.
    Raises ConfigError when there are no images, a class is empty, the splits' classes differ, something cannot be
    seen, or names leave open what is a split.
    """
    base = require_root(root)
    layout, reader = layout_of(base), _Reader(base, channels, cache, max_pixels)
    if not layout.splits:
        everything, classes = reader.read(base)
        reader.finish()
        return RawDataset(
            everything, None, None, Classes(classes), test, notes=(*beside(base, layout), *reader.notes())
        )
    found = {split: reader.read(folder) for split, folder in layout.splits.items()}
    reader.finish()
    train, classes = found["train"]
    for split in found:
        _require_classes(layout.splits["train"], classes, layout.splits[split], found[split][1])
    others = {split: found[split][0] if split in found else None for split in ("validation", "test")}
    notes = (*spelling(layout), *beside(base, layout), *reader.notes())
    return RawDataset(train, others["validation"], others["test"], Classes(classes), notes=notes)


def given_splits(
    root: str,
    classes: Sequence[str],
    channels: Literal[1, 3],
    cache: Path | None = None,
    max_pixels: int = MAX_PIXELS,
) -> dict[str, tuple[Source, list[str]]]:
    """What is labelled below `root`, by the split, with the names of its classes; class folders alone are `train`.

    A folder with a split's name is that split when it holds a folder with the name of one of `classes`.
    Raises ConfigError when there are no images, a class folder is empty, or something cannot be seen.
    """
    base = require_root(root)
    reader = _Reader(base, channels, cache, max_pixels)
    named = splits_among(subfolders(base))
    folders: dict[Split, str] = {}
    for folder, split in named.items():
        if not set(class_folders(base / folder)) & set(classes):
            continue
        if split in folders:
            raise unfit(base, f"both {base / folders[split]} and {base / folder} could be the {split} split; keep one")
        folders[split] = folder
    found: dict[str, tuple[Source, list[str]]] = {}
    for split, folder in folders.items():
        source, inside = reader.read(base / folder)
        paths = [f"{folder}/{path}" for path in source.files.paths]
        files = ImageFiles(str(base), paths, channels, cache, max_pixels)
        found[split] = FileSource(files, source.targets), inside
    if not found:
        found["train"] = reader.read(base)
    reader.finish()
    return found


@dataclass
class _Reader:
    """Reads the class folders of splits, and gathers what is wrong and what is left out."""

    base: Path
    channels: int
    cache: Path | None
    max_pixels: int
    problems: list[Diagnostic] = field(default_factory=list)
    suffixes: Counter[str] = field(default_factory=Counter)
    again: list[str] = field(default_factory=list)
    special: int = 0
    alike: list[Note] = field(default_factory=list)

    def read(self, folder: Path) -> tuple[FileSource, list[str]]:
        """The images in the class folders of `folder`, and the classes; see `finish`."""
        folders = class_folders(folder)
        closed = self._closed(folder, folders)
        paths: list[str] = []
        labels: list[int] = []
        deeper: list[set[str]] = []
        for label, (name, inside) in enumerate(folders.items()):
            found = self._images(folder, name, inside, closed)
            deeper.append({path[len(inside) + 1 :].split("/")[0] for path in found if path.count("/") > 1})
            self._refuse_splits_in(folder / inside, deeper[-1])
            paths += found
            labels += [label] * len(found)
        if not paths and not self.problems:
            unlabelled = "images without labels are for `dltrain predict`: move this folder away"
            notes = [unlabelled] if folder != self.base else []
            raise unfit(self.base, f"there are no images in class folders in {folder.absolute()}", *notes)
        if len(folders) == 1 and len(deeper[0]) > 1:
            only, inner = folder / next(iter(folders.values())), ", ".join(sorted(deeper[0])[:SHOWN])
            note = f"write `root: {only}`" if folder == self.base else f"move them into {folder}"
            raise unfit(self.base, f"{only} is the only class, and holds folders itself: {inner}", note)
        if len(deeper) > 1 and len(deeper[0]) > 1 and all(names == deeper[0] for names in deeper):
            names = ", ".join(sorted(deeper[0])[:SHOWN])
            message = f"every class in {folder} holds the same folders ({names}): are these the classes?"
            self.alike.append(Note("warning", "alike", message))
        found_labels = np.array(labels, dtype=np.int64)
        files = ImageFiles(str(folder), paths, self.channels, self.cache, self.max_pixels)
        return FileSource(files, found_labels), list(folders)

    def finish(self) -> None:
        """Raises ConfigError for everything that was wrong."""
        if self.problems:
            raise ConfigError(self.problems)

    def notes(self) -> list[Note]:
        return [*self.alike, *left_out(self.suffixes, self.again, self.special)]

    def _closed(self, folder: Path, folders: dict[str, str]) -> dict[str, Identity]:
        """By the class's name, its folder; by the empty name, those above it."""
        closed: dict[str, Identity] = {}
        for name, inside in folders.items():
            try:
                known = identity(folder / inside)
            except OSError:
                continue  # said when it is read
            if twin := next((other for other, one in closed.items() if one == known), None):
                message = (
                    f"classes `{twin}` and `{name}` are one folder: {folder / folders[twin]} and {folder / inside}"
                )
                self.problems.append(Diagnostic(message, notes=("delete the link",)))
            closed[name] = known
        return closed

    def _images(self, folder: Path, name: str, inside: str, closed: dict[str, Identity]) -> list[str]:
        """Paths of the class's image files relative to `folder`, with forward slashes, sorted."""
        found: list[str] = []
        own: Counter[str] = Counter()
        start, skip = str(folder / inside), len(str(folder / "x")) - 1
        others = {one for other, one in closed.items() if other != name}
        faults = len(self.problems)
        for entry in walk(start, {*others, identity(folder), *ancestors(folder)}):
            if entry.kind == "fault":
                self.problems.append(Diagnostic(entry.reason))
            elif entry.kind == "again":
                self.again.append(entry.path)
            elif entry.kind == "special":
                self.special += 1
            elif is_image(entry.name):
                found.append(entry.path[skip:].replace(os.sep, "/"))
            else:
                own[suffix_of(entry.name)] += 1
        if not found and len(self.problems) == faults:
            held = counted(Counter(dict(own.most_common(SHOWN))))
            note = f"it holds {held}; dltrain trains on images" if own else ""
            message = f"class `{name}` is empty: no image in {folder / inside}"
            self.problems.append(Diagnostic(message, notes=(note,) if note else ()))
        self.suffixes += own
        return sorted(found)

    def _refuse_splits_in(self, folder: Path, names: set[str]) -> None:
        """Splits inside of classes would be read as one."""
        splits = splits_among(sorted(names))
        if len(set(splits.values())) > 1:
            there = " and ".join(str(folder / name) for name in splits)
            note = f"move them: {self.base}/train/{folder.name}/<image>.jpg and so on"
            self.problems.append(Diagnostic(f"{there} look like splits inside of a class", notes=(note,)))


def _require_classes(first: Path, classes: list[str], folder: Path, found: list[str]) -> None:
    """Raise ConfigError when a split's classes are not those of the training split."""
    if found == classes:
        return
    unknown, absent = sorted(set(found) - set(classes)), sorted(set(classes) - set(found))
    notes = [f"only in {folder.name}: {', '.join(unknown)}"] if unknown else []
    notes += [f"only in {first.name}: {', '.join(absent)}"] if absent else []
    raise ConfigError([Diagnostic(f"the classes in {folder} are not those in {first}", notes=notes)])
