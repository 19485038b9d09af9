"""A table -> the parts of a data set: rows or pictures, divided as a column says it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from dltrain.config import ConfigError, Diagnostic, suggest
from dltrain.data.sources import FileSource
from dltrain.data.tables.encoding import unfit
from dltrain.data.tables.reading import Column, Table
from dltrain.data.tables.source import RowSource
from dltrain.data.targets import TargetSpec
from dltrain.data.types import ImageFiles, RawDataset, Source


def row_source(table: Table, features: Sequence[str], targets: np.ndarray, group: np.ndarray | None) -> RowSource:
    """Rows whose features are these columns. Raises ConfigError for a column that is not there, and for no columns."""
    if not features:
        raise unfit(table.path, "no column is left for the network to see")
    return RowSource(table.only(features), targets, group, _without(table, features))


def picture_source(
    column: Column, table: Table, targets: np.ndarray, group: np.ndarray | None, files: ImageFiles
) -> FileSource:
    """The pictures that a column names, by paths below `files.root`. Raises ConfigError, which names the row, for one
    that is not there."""
    words = column.as_words().words
    assert words is not None
    for place, path in enumerate(words.tolist()):
        full = os.path.join(files.root, path)  # noqa: PTH118
        if not path or not os.path.isfile(full):  # noqa: PTH113
            what = f"names {full}, which is no file" if path else "names no picture"
            note = "paths are relative to `image_root`, by default the folder of the table"
            near = suggest(os.path.basename(path), os.listdir(os.path.dirname(full))) if _has_folder(full) else None  # noqa: PTH119, PTH120, PTH208
            message = f"row {table.number(place)} {what}, in column `{column.name}`"
            raise unfit(table.path, message, *([f"did you mean `{near}`?"] if near else []), note)
    return FileSource(files.having(words.tolist()), targets, group, _without(table, [column.name]))


def _without(table: Table, names: Sequence[str]) -> Table | None:
    """The other columns, if there are some."""
    others = [name for name in table.columns if name not in names]
    return table.only(others) if others else None


def _has_folder(path: str) -> bool:
    return os.path.isdir(os.path.dirname(path))  # noqa: PTH112, PTH120


def divided(source: Source, target: TargetSpec, splits: dict[str, np.ndarray] | None, test: float) -> RawDataset:
    """The parts. splits: the places of each split that is given; None: all is to be divided, with `test` as its share.

    Raises ConfigError naming a group that stands in two splits.
    """
    if splits is None:
        return RawDataset(source, None, None, target, test)
    found: dict[str, Source] = {name: source.subset(places) for name, places in splits.items()}
    _require_whole_groups(found)
    return RawDataset(found["train"], found.get("validation"), found.get("test"), target)


def _require_whole_groups(splits: dict[str, Source]) -> None:
    homes: dict[str, str] = {}
    for name, source in splits.items():
        groups = source.groups()
        for place, group in enumerate(groups.tolist() if groups is not None else ()):
            if homes.setdefault(group, name) != name:
                row = source.names()[place]
                message = f"group `{group}` stands in the {homes[group]} and in the {name} split: see {row}"
                raise ConfigError([Diagnostic(message, notes=("a group belongs to one split: mend the split column",))])
