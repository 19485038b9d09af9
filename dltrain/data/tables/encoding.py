"""Columns -> numbers for a network. What is learned of the training part (categories, fillings) stays what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.tables.reading import Column, Table

Missing = Literal["error", "mean", "median", "indicator"]
MANY = 100
"""Categories above which a column is more likely a name or a text than a feature."""


@dataclass(frozen=True)
class Feature:
    """How a column becomes numbers: one, or one for each of its `categories`. filling: what stands for a missing
    number. indicator: whether one more number says that it was missing."""

    column: str
    categories: tuple[str, ...] | None = None
    filling: float | None = None
    indicator: bool = False

    @property
    def names(self) -> list[str]:
        """The names of the numbers."""
        if self.categories is not None:
            return [f"{self.column}={category}" for category in self.categories]
        return [self.column, f"{self.column} is missing"] if self.indicator else [self.column]


@dataclass(frozen=True)
class Encoder:
    """Rows of a table -> (N, D) float32: numbers as they are, categories one-hot, an unseen category as zeros."""

    features: tuple[Feature, ...]

    @classmethod
    def fitted(cls, table: Table, names: Sequence[str], rows: np.ndarray, missing: Missing) -> Encoder:
        """What the training rows teach of the columns. Raises ConfigError for values that are missing and must not be,
        a column without any value there, and one with more than MANY categories."""
        return cls(tuple(_feature(table.path, table.column(name), rows, missing) for name in names))

    @property
    def names(self) -> list[str]:
        """The names of the D numbers."""
        return [name for feature in self.features for name in feature.names]

    def encode(self, table: Table) -> tuple[np.ndarray, dict[str, int]]:
        """(N, D) float32, and for each column how many rows have a category that training had not.

        Raises ConfigError, which names the row, for a missing value where training had none and nothing stands for it.
        """
        parts, unseen = [], {}
        for feature in self.features:
            values, unknown = _encoded(table.path, feature, table.column(feature.column))
            parts.append(values)
            if unknown:
                unseen[feature.column] = unknown
        return np.concatenate(parts, axis=1).astype(np.float32), unseen

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the checkpoint."""
        listed = [asdict(feature) for feature in self.features]
        for values in listed:
            values["categories"] = None if values["categories"] is None else list(values["categories"])
        return {"features": listed}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Encoder:
        """What `to_dict` returned."""
        return cls(
            tuple(
                Feature(
                    each["column"], None if each["categories"] is None else tuple(each["categories"]),
                    each["filling"], each["indicator"],
                )
                for each in values["features"]
            )
        )  # fmt: skip


def _feature(path: str, column: Column, rows: np.ndarray, missing: Missing) -> Feature:
    gone, name = column.missing, column.name
    if gone[rows].all():
        raise _unfit(path, f"column `{name}` has no value in the training part", "leave it out of `features`")
    if missing == "error" and gone.any():
        lacks = f"it lacks {int(gone.sum()):,} of {len(gone):,} values"
        ways = "`missing: mean`, `median` or `indicator` fills them, or leave the column out of `features`"
        raise _unfit(
            path, f"row {int(np.flatnonzero(gone)[0]) + 1} has no value in column `{name}`", f"{lacks}; {ways}"
        )
    indicator = missing == "indicator" and bool(gone[rows].any())
    if column.words is not None:
        found = sorted(set(column.words[rows][~gone[rows]].tolist()))
        if len(found) > MANY:
            note = "leave it out of `features`: it looks like a name or a text"
            raise _unfit(path, f"column `{name}` has {len(found):,} categories", note)
        return Feature(name, categories=(*found, "") if indicator else tuple(found))
    assert column.numbers is not None
    known = column.numbers[rows][~gone[rows]]
    filling = float(np.median(known)) if missing == "median" else float(known.mean())
    return Feature(name, filling=None if missing == "error" else filling, indicator=indicator)


def _encoded(path: str, feature: Feature, column: Column) -> tuple[np.ndarray, int]:
    if feature.categories is not None:
        words = column.as_words().words
        assert words is not None
        hot = words[:, None] == np.array(feature.categories)[None, :]
        return hot.astype(np.float64), int((~hot.any(axis=1) & (words != "")).sum())
    gone, numbers = column.missing, column.numbers
    if numbers is None:
        assert column.words is not None
        row = int(np.flatnonzero(~gone)[0])
        raise _unfit(path, f"`{column.words[row]}` in row {row + 1} of column `{feature.column}` is no number")
    if gone.any():
        if feature.filling is None:
            row = int(np.flatnonzero(gone)[0]) + 1
            raise _unfit(path, f"row {row} has no value in column `{feature.column}`; in training every row had one")
        numbers = np.where(gone, feature.filling, numbers)
    parts = [numbers, gone.astype(np.float64)] if feature.indicator else [numbers]
    return np.stack(parts, axis=1), 0


def _unfit(path: str, message: str, *notes: str) -> ConfigError:
    return ConfigError([Diagnostic(f"{path}: {message}", notes=notes)])
