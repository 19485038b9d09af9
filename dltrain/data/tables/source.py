"""Rows of a table as examples."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from dltrain.data.copies.contents import CONTENT
from dltrain.data.tables.encoding import Encoding
from dltrain.data.tables.reading import Table, joined_tables, values_at
from dltrain.data.types import Loaded

if TYPE_CHECKING:
    from typing_extensions import Self


class RowSource:
    """Rows of a table, whose columns are the features. targets: (N, ...); group: (N,) words, see `Source.groups`.
    beside: the columns of the same rows that no network sees."""

    words: ClassVar[str] = "rows"
    in_memory = True
    files = None

    def __init__(
        self, table: Table, targets: np.ndarray, group: np.ndarray | None = None, beside: Table | None = None
    ) -> None:
        self.table, self.targets, self.group, self.beside = table, targets, group, beside

    def __len__(self) -> int:
        return len(self.targets)

    def keys(self) -> list[bytes]:
        """Their values."""
        columns = self.table.columns.values()
        numbers = [column.numbers for column in columns if column.numbers is not None]
        rows = np.stack(numbers, axis=1) if numbers else np.zeros((len(self), 0))
        words = [column.words.tolist() for column in columns if column.words is not None]
        texts = ["\x1f".join(row).encode() for row in zip(*words)] if words else [b""] * len(self)
        return [row.tobytes() + text for row, text in zip(rows, texts)]

    def names(self) -> list[str]:
        return [f"row {self.table.number(place)} of {self.table.path}" for place in range(len(self))]

    def where(self) -> dict[str, list[Any]]:
        return {"path": [self.table.path] * len(self), "row": [self.table.number(place) for place in range(len(self))]}

    def groups(self) -> np.ndarray | None:
        return self.group

    def contents(self, *, look: bool) -> np.ndarray:
        """Digests of their values: rows with equal values are copies of each other."""
        found = np.zeros(len(self), CONTENT)
        for row, key in zip(found, self.keys()):
            row["bytes"] = row["pixels"] = np.frombuffer(hashlib.blake2b(key, digest_size=16).digest(), np.uint8)
        return found

    def bytes_on(self, encoding: Encoding) -> int:
        return 4 * len(self) * len(encoding.names)

    def lies_on(self, encoding: Encoding) -> bool:
        return False

    def load(self, indices: np.ndarray, encoding: Encoding) -> Loaded:
        """Raises ConfigError naming a row that the encoding does not take."""
        return encoding.encode(self.table.at(indices)), None

    def whole(self, encoding: Encoding) -> Loaded:
        return encoding.encode(self.table), None

    def unlike(self, encoding: Encoding) -> list[str]:
        return [
            f"{count:,} of {len(self):,} rows have a word in column `{column}` that training had not"
            for column, count in encoding.unseen(self.table).items()
        ]

    def pictures(self, indices: np.ndarray, side: int) -> None:
        return None

    def facts(self, indices: np.ndarray) -> dict[str, Any]:
        return values_at(self.table, indices) | values_at(self.beside, indices)

    def subset(self, indices: np.ndarray) -> RowSource:
        group = None if self.group is None else self.group[indices]
        beside = None if self.beside is None else self.beside.at(indices)
        return RowSource(self.table.at(indices), self.targets[indices], group, beside)

    def with_targets(self, targets: np.ndarray) -> RowSource:
        return RowSource(self.table, targets, self.group, self.beside)

    def joined(self, others: Sequence[Self]) -> RowSource:
        parts = [self, *others]
        table = self.table.joined([part.table for part in others])
        beside = joined_tables([part.beside for part in parts])
        return RowSource(table, np.concatenate([part.targets for part in parts]), beside=beside)
