"""Columns -> numbers for a network. What is learned of the training part (categories, fillings, scales) stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.tables.options import Missing, RowScaling
from dltrain.data.tables.reading import Column, Table

if TYPE_CHECKING:
    from torch import Tensor

MANY = 100
"""Categories above which a column is more likely a name or a text than a feature."""
WIDEST = 4096
"""Numbers of a row that can be whitened: the covariance takes the square of that, 128 MiB in float64."""


@dataclass(frozen=True)
class Feature:
    """How a column becomes numbers: one, or one for each of its `categories`. filling: what stands for a missing
    number. indicator: whether one more number says that it was missing. A number x becomes (x - mean) / std."""

    column: str
    categories: tuple[str, ...] | None = None
    filling: float | None = None
    indicator: bool = False
    mean: float = 0.0
    std: float = 1.0

    @property
    def names(self) -> list[str]:
        """The names of the numbers."""
        if self.categories is not None:
            return [f"{self.column}={category}" for category in self.categories]
        return [self.column, f"{self.column} is missing"] if self.indicator else [self.column]


@dataclass(frozen=True)
class RowWhitening:
    """Rows x, scaled, become (x - mean) @ matrix. mean: (D,), matrix: (D, D), float64."""

    mean: np.ndarray
    matrix: np.ndarray

    @classmethod
    def fitted(cls, kind: RowScaling, values: np.ndarray, epsilon: float) -> RowWhitening:
        """Of rows (N, D): with their covariance U diag(L) U^T the matrix is U diag(L + epsilon)^(-1/2) for pca_whiten,
        and that times U^T for zca_whiten."""
        mean = values.mean(0)
        variances, axes = np.linalg.eigh(np.cov(values, rowvar=False, bias=True).reshape(values.shape[1], -1))
        variances, axes = variances[::-1].clip(0), axes[:, ::-1]
        # An eigenvector has no sign of its own: its largest component is to be positive.
        largest = np.take_along_axis(axes, np.abs(axes).argmax(0)[None], 0)
        axes = axes * np.where(largest < 0, -1.0, 1.0)
        matrix = axes / np.sqrt(variances + epsilon)
        return cls(mean, matrix if kind == "pca_whiten" else matrix @ axes.T)


@dataclass(frozen=True)
class Encoding:
    """Rows of a table -> (N, D) float32: numbers scaled, categories one-hot, an unseen category as zeros; then all of
    them whitened, where that is asked for."""

    features: tuple[Feature, ...]
    whitening: RowWhitening | None = None

    @classmethod
    def fitted(
        cls, table: Table, rows: np.ndarray, missing: Missing = "error", scaling: RowScaling = "none",
        epsilon: float = 0.01,
    ) -> Encoding:  # fmt: skip
        """What the training rows teach of all columns.

        scaling: `standardize` gives a number the mean 0 and the population standard deviation 1 over them, `min_max`
        the range 0 to 1; a number that never varies becomes 0. Categories and indicators stay 0 and 1. `pca_whiten`
        and `zca_whiten` standardize, and then whiten whole rows; epsilon is added to their variances.
        Raises ConfigError for values that are missing and must not be, a column without any value there, one with more
        than MANY categories, and rows too wide to be whitened.
        """
        features = tuple(_feature(table, column, rows, missing, scaling) for column in table.columns.values())
        encoding = cls(features)
        if scaling not in ("pca_whiten", "zca_whiten"):
            return encoding
        if len(encoding.names) > WIDEST:
            message = f"`{scaling}` of rows of {len(encoding.names):,} numbers: more than {WIDEST:,} take too large a"
            raise ConfigError([Diagnostic(f"{message} matrix", notes=("write `scaling: standardize`",))])
        return replace(encoding, whitening=RowWhitening.fitted(scaling, encoding._scaled(table.at(rows)), epsilon))

    @property
    def names(self) -> list[str]:
        """The names of the D numbers."""
        return [name for feature in self.features for name in feature.names]

    @property
    def columns(self) -> list[str]:
        """The columns that a table must have."""
        return [feature.column for feature in self.features]

    def __str__(self) -> str:
        return f"{len(self.features)} columns as {len(self.names)} numbers"

    def encode(self, table: Table) -> Tensor:
        """(N, D) float32. Raises ConfigError, which names the row, for a missing value where training had none and
        nothing stands for it."""
        import torch

        values = self._scaled(table)
        if self.whitening is not None:
            values = (values - self.whitening.mean) @ self.whitening.matrix
        return torch.from_numpy(values.astype(np.float32))

    def unseen(self, table: Table) -> dict[str, int]:
        """For each column how many rows have a category that training had not, where there are any."""
        counts = {}
        for feature in self.features:
            if feature.categories is not None:
                words = _words(table, feature.column)
                counts[feature.column] = int((~np.isin(words, feature.categories) & (words != "")).sum())
        return {column: count for column, count in counts.items() if count}

    def _scaled(self, table: Table) -> np.ndarray:
        """(N, D) float64."""
        return np.concatenate([_encoded(table, feature) for feature in self.features], axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values and tensors, for the checkpoint."""
        import torch

        listed = [asdict(feature) for feature in self.features]
        for values in listed:
            values["categories"] = None if values["categories"] is None else list(values["categories"])
        matrices = {}
        if self.whitening is not None:
            matrices = {name: torch.from_numpy(array.copy()) for name, array in vars(self.whitening).items()}
        return {"features": listed, "whitening": matrices or None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Encoding:
        """What `to_dict` returned."""
        features = tuple(
            Feature(**{**each, "categories": None if each["categories"] is None else tuple(each["categories"])})
            for each in values["features"]
        )
        matrices = values["whitening"]
        return cls(features, None if matrices is None else RowWhitening(**{n: t.numpy() for n, t in matrices.items()}))


def _feature(table: Table, column: Column, rows: np.ndarray, missing: Missing, scaling: RowScaling) -> Feature:
    path, gone, name = table.path, column.missing, column.name
    if gone[rows].all():
        raise unfit(path, f"column `{name}` has no value in the training part", "leave it out of `features`")
    if missing == "error" and gone.any():
        lacks = f"it lacks {int(gone.sum()):,} of {len(gone):,} values"
        ways = "`missing: mean`, `median` or `indicator` fills them, or leave the column out of `features`"
        row = table.number(int(np.flatnonzero(gone)[0]))
        raise unfit(path, f"row {row} has no value in column `{name}`", f"{lacks}; {ways}")
    indicator = missing == "indicator" and bool(gone[rows].any())
    if column.words is not None:
        found = sorted(set(column.words[rows][~gone[rows]].tolist()))
        if len(found) > MANY:
            note = "leave it out of `features`: it looks like a name or a text"
            raise unfit(path, f"column `{name}` has {len(found):,} categories", note)
        return Feature(name, categories=(*found, "") if indicator else tuple(found))
    assert column.numbers is not None
    known = column.numbers[rows][~gone[rows]]
    filling = float(np.median(known)) if missing == "median" else float(known.mean())
    whole = np.where(gone[rows], filling, column.numbers[rows])
    mean, std = 0.0, 1.0
    if scaling == "min_max":
        mean, std = float(whole.min()), float(np.ptp(whole)) or 1.0
    elif scaling != "none":
        mean = float(whole.mean())
        std = float(whole.std()) if np.ptp(whole) else 1.0
    return Feature(name, None, None if missing == "error" else filling, indicator, mean, std)


def _encoded(table: Table, feature: Feature) -> np.ndarray:
    if feature.categories is not None:
        hot: np.ndarray = _words(table, feature.column)[:, None] == np.array(feature.categories)[None, :]
        return hot.astype(np.float64)
    column = table.column(feature.column)
    gone, numbers = column.missing, column.numbers
    if numbers is None:
        assert column.words is not None
        if not gone.all():
            place = int(np.flatnonzero(~gone)[0])
            where = f"`{column.words[place]}` in row {table.number(place)} of column `{feature.column}`"
            raise unfit(table.path, f"{where} is no number")
        numbers = np.full(len(gone), np.nan)
    if gone.any():
        if feature.filling is None:
            row = table.number(int(np.flatnonzero(gone)[0]))
            message = f"row {row} has no value in column `{feature.column}`"
            raise unfit(table.path, f"{message}; in training every row had one")
        numbers = np.where(gone, feature.filling, numbers)
    numbers = (numbers - feature.mean) / feature.std
    return np.stack([numbers, gone.astype(np.float64)] if feature.indicator else [numbers], axis=1)


def _words(table: Table, column: str) -> np.ndarray:
    words = table.column(column).as_words().words
    assert words is not None
    return words


@contextmanager
def keyed(key: str) -> Iterator[None]:
    """Give the mistakes of a column the option of the data section that names it."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError([replace(each, key=each.key or key) for each in error.diagnostics]) from None


def unfit(path: str, message: str, *notes: str) -> ConfigError:
    """The mistake of a file."""
    return ConfigError([Diagnostic(f"{path}: {message}", notes=notes)])
