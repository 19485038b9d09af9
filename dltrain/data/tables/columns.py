"""The columns of a table that are no features: what is to be learned, and what says how rows are divided."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from dltrain.config import suggest
from dltrain.data.folders.split_names import WORDS
from dltrain.data.tables.encoding import unfit
from dltrain.data.tables.reading import Column, Table, read_table
from dltrain.data.targets import Classes, Labels, NoTarget, Real, TargetSpec

FEW = 10
"""Different whole numbers in a target column up to which they are taken for classes."""


def kinds_of(columns: Sequence[Column]) -> tuple[type[TargetSpec], ...]:
    """What these target columns can be read as, first what they are unless a task wants something else.

    No column: nothing. One of words, of true and false or of at most FEW whole numbers: classes, else numbers. Several
    of 0 and 1: labels, else numbers.
    """
    if not columns:
        return (NoTarget,)
    two = all(_zeros_and_ones(column) for column in columns)
    if len(columns) > 1:
        return (Labels, Real) if two else (Real,)
    numbers = columns[0].numbers
    if numbers is None:
        return (Classes,)
    known = numbers[~np.isnan(numbers)]
    if (known != np.floor(known)).any():
        return (Real,)
    labels = (Labels,) if two else ()
    return (Classes, Real, *labels) if len(np.unique(known)) <= FEW else (Real, Classes)


@lru_cache
def kinds_in(
    path: str, stamp: tuple[int, ...], words: frozenset[str], header: bool, names: tuple[str, ...]
) -> tuple[type[TargetSpec], ...]:
    """`kinds_of` the target columns `names` of a file, which a check asks for several times, and is read once.

    stamp: what changes when the file does. words, header: see `read_table`. Raises ConfigError as that does, and for a
    column that is not there.
    """
    table = read_table(path, words, header=header)
    return kinds_of([table.column(name) for name in names])


def read_target(table: Table, names: Sequence[str], kind: type[TargetSpec]) -> tuple[TargetSpec, np.ndarray]:
    """What the columns `names` say of each row, as targets of a kind: the spec, and the values (N, ...).

    Raises ConfigError, which names the row, for a missing value or one that is no target of the kind.
    """
    columns = [table.column(name) for name in names]
    for column in columns:
        if (gone := column.missing).any():
            row, lacks = table.number(int(gone.argmax())), f"{int(gone.sum()):,} of {len(gone):,} rows have none"
            note = f"{lacks}: what is to be learned must be known; leave these rows out of the file"
            raise unfit(table.path, f"row {row} has no value in the target column `{column.name}`", note)
    if issubclass(kind, Classes):
        return _classes(columns[0])
    if issubclass(kind, NoTarget):
        return NoTarget(), np.zeros((len(table), 0))
    for column in columns:
        if column.numbers is None:
            raise unfit(table.path, f"the target column `{column.name}` holds words, and the task learns {kind.words}")
    values = np.stack([column.numbers for column in columns if column.numbers is not None], axis=1)
    if issubclass(kind, Labels):
        for column in columns:
            if not _zeros_and_ones(column):
                raise unfit(table.path, f"the target column `{column.name}` must hold 0 and 1: whether a row has it")
        return Labels(list(names)), values != 0
    return Real(list(names)), values


def read_splits(table: Table, name: str) -> dict[str, np.ndarray]:
    """The rows of each split that column `name` says, by the split: places in the table, from 0.

    Raises ConfigError, which names the row, for a word that says none.
    """
    words = table.column(name).as_words().words
    assert words is not None
    splits = np.array([WORDS.get(word.lower(), "") for word in words.tolist()])
    if (unknown := splits == "").any():
        place = int(unknown.argmax())
        says = f"`{words[place]}`" if words[place] else "nothing"
        near = suggest(str(words[place]).lower(), WORDS)
        message = f"row {table.number(place)} says {says} in the split column `{name}`"
        raise unfit(
            table.path, message, *([f"did you mean `{near}`?"] if near else []), "it takes train, validation, test"
        )
    found = {split: np.flatnonzero(splits == split) for split in ("train", "validation", "test")}
    if not len(found["train"]):
        raise unfit(table.path, f"no row is `train` in the split column `{name}`")
    return {split: rows for split, rows in found.items() if len(rows)}


def read_groups(table: Table, name: str) -> np.ndarray:
    """(N,) the words of column `name`; a row without one is a group of its own."""
    words = table.column(name).as_words().words
    assert words is not None
    own = np.array([f"\x1f{place}" for place in range(len(words))])
    groups: np.ndarray = np.where(words == "", own, words)
    return groups


def _classes(column: Column) -> tuple[Classes, np.ndarray]:
    """Numbers in their order, words in that of the alphabet."""
    if column.numbers is not None:
        values, labels = np.unique(column.numbers, return_inverse=True)
        return Classes([f"{value:.12g}" for value in values.tolist()]), labels.reshape(-1).astype(np.int64)
    assert column.words is not None
    names, labels = np.unique(column.words, return_inverse=True)
    return Classes(names.tolist()), labels.reshape(-1).astype(np.int64)


def _zeros_and_ones(column: Column) -> bool:
    return column.numbers is not None and bool(np.isin(column.numbers[~np.isnan(column.numbers)], (0, 1)).all())
