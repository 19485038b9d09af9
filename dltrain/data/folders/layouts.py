"""Which folders are splits, which are classes, and what lies beside them.

    root -> its folders -> splits by their names (train/, val/, test/ in any spelling), or class folders alone

What could be either is refused, with what to rename.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.folders.listing import Entry, broken, counted, is_image, reason, scan, url_in, walk
from dltrain.data.folders.split_names import Split, splits_among
from dltrain.errors import Note

EXPECTED = (
    "expected class folders in train/ (and optionally in val/ and test/):",
    "    {root}/train/<class>/<image>.jpg",
    "or class folders alone, which are split:",
    "    {root}/<class>/<image>.jpg",
)


@dataclass(frozen=True)
class Layout:
    """The folders of the splits; none when the root holds class folders itself. beside: the other folders there."""

    splits: Mapping[Split, Path]
    beside: tuple[Path, ...] = ()


def layout_of(base: Path) -> Layout:
    """How the data below `base` is laid out. Raises ConfigError when names leave that open, or it cannot be seen."""
    folders = subfolders(base)
    named = splits_among(folders)
    deep = {name for name in named if subfolders(base / name)}
    if not any(named[name] == "train" for name in deep):
        _refuse_splits_without_training(base, folders, named, deep)
        return Layout({})
    splits: dict[Split, Path] = {}
    for name, split in named.items():
        if split in splits:
            message = f"both {splits[split]} and {base / name} could be the {split} split"
            raise unfit(base, f"{message.replace('train split', 'training split')}; keep one")
        splits[split] = base / name
    return Layout(splits, tuple(base / name for name in folders if name not in named))


def _refuse_splits_without_training(base: Path, folders: list[str], named: Mapping[str, Split], deep: set[str]) -> None:
    """Raise ConfigError for folders that are called like splits and cannot be read as such."""
    if not deep and ((len(set(named.values())) < 2 and len(named) < len(folders)) or not named):
        return
    if not deep and len(folders) == 1:
        return  # one class: said elsewhere
    called = sorted(deep) or sorted(named)
    names = " and ".join(str(base / name) for name in called)
    look = f"look{'s' if len(called) == 1 else ''} like {'a split' if len(called) == 1 else 'splits'}"
    if not deep:
        raise unfit(base, f"{names} {look}, and hold no class folders")
    note = f"rename the folder with the training split to {base / 'train'}; if these are classes, give them other names"
    raise unfit(base, f"{names} {look}, and there is no {base / 'train'} with class folders", note)


def require_root(root: str) -> Path:
    """The folder that the user named. Raises ConfigError when there is none, with the reason."""
    base = Path(root)
    if url := url_in(root):
        note = "download the images, and write the folder where they lie"
        raise ConfigError([Diagnostic(f"{url} is a URL, and images are read from folders", notes=(note,), key="root")])
    try:
        if base.is_dir():
            return base
        there, link = base.exists(), base.is_symlink()
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise ConfigError([Diagnostic(f"the folder {root} cannot be read: {why}", key="root")]) from None
    if there:
        note = "unpack it" if base.suffix in (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z") else ""
        raise unfit(base, f"{base} is a file, not a folder of images", note)
    raise unfit(base, broken(base) if link else f"there is no folder {base.absolute()}")


def contents_of(folder: Path) -> list[Entry]:
    """What lies in a folder itself. Raises ConfigError when the folder, or something in it, cannot be seen."""
    try:
        found = scan(str(folder))
    except OSError as error:
        raise ConfigError([Diagnostic(f"the folder {folder} cannot be read: {reason(error)}")]) from None
    if faults := [entry for entry in found if entry.kind == "fault"]:
        raise ConfigError(Diagnostic(fault.reason, notes=("mount what it leads to, or delete it",)) for fault in faults)
    return found


def subfolders(folder: Path) -> list[str]:
    """The names of its folders, sorted. Raises ConfigError like `contents_of`."""
    return [entry.name for entry in contents_of(folder) if entry.kind == "folder"]


def class_folders(folder: Path) -> dict[str, str]:
    """Class -> folder, in order of the classes' names, which are those of the folders with accents composed (NFC).

    Raises ConfigError for names that are no text, or two that differ only in how accents are stored.
    """
    found: dict[str, str] = {}
    problems = []
    for name in subfolders(folder):
        label = unicodedata.normalize("NFC", name)
        try:
            label.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(name).decode("ascii", "backslashreplace")
            message = f"the name of the class folder {folder}/{shown} is not UTF-8"
            problems.append(Diagnostic(message, notes=("rename it: a class needs a name that is text",)))
            continue
        if label in found:
            message = (
                f"two folders in {folder} are called `{label}`: one with composed accents, one with decomposed ones"
            )
            problems.append(Diagnostic(message, notes=("move the images of both into one",)))
        found[label] = name
    if problems:
        raise ConfigError(problems)
    return dict(sorted(found.items()))


def beside(base: Path, layout: Layout) -> list[Note]:
    """Notes on images that lie where none are read: in folders beside the splits, and beside class folders."""
    found = []
    for folder in layout.beside:
        images = sum(entry.kind == "file" and is_image(entry.name) for entry in walk(str(folder)))
        if images:
            found.append(f"{folder}/ ({images:,} images)")
    for folder in [base, *layout.splits.values()]:
        images = sum(entry.kind == "file" and is_image(entry.name) for entry in contents_of(folder))
        if images:
            found.append(f"{images:,} images directly in {folder}")
    if not found:
        return []
    read = "train/, val/ and test/ alone are read" if layout.splits else "only those in class folders are read"
    return [Note("warning", "left_out", f"left out: {', '.join(found)}; {read}")]


def spelling(layout: Layout) -> list[Note]:
    """A note on splits that have another name than usual."""
    usual = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
    odd = [f"{path} as the {split.replace('train', 'training')} split" for split, path in layout.splits.items()
           if path.name not in usual[split]]  # fmt: skip
    return [Note("info", "spelling", f"reads {', '.join(odd)}")] if odd else []


def left_out(suffixes: Counter[str], again: list[str], special: int) -> list[Note]:
    """Notes on what lies in class folders and is not read."""
    notes = []
    if suffixes:
        files = f"{sum(suffixes.values()):,} files that are no images by their names: {counted(suffixes)}"
        notes.append(Note("info", "left_out", f"left out: {files}"))
    if special:
        opened = f"left out: {special:,} pipes, sockets or devices, which are never opened"
        notes.append(Note("info", "left_out", opened))
    if again:
        what = "link" if len(again) == 1 else "links"
        where = "a folder that is read already, is another class or contains this one"
        links = f"left out: {len(again):,} {what} to {where}, such as {again[0]}"
        notes.append(Note("warning", "left_out", links))
    return notes


def unfit(base: Path, message: str, *notes: str) -> ConfigError:
    """The error for a folder that does not hold what it should, with what is expected."""
    expected = [line.format(root=base) for line in EXPECTED]
    return ConfigError([Diagnostic(message, notes=[*filter(None, notes), *expected], key="root")])
