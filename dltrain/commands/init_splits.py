"""Splits for a first experiment, however few examples there are of a class."""

from __future__ import annotations

from dltrain.config import ConfigError
from dltrain.data.base import Dataset
from dltrain.data.types import Splits

SHARES: list[dict[str, float]] = [
    {}, {"validation": 0.2}, {"validation": 0.3, "test": 0.3}, {"validation": 0.4, "test": 0.0},
]  # fmt: skip
"""Shares of validation and test data that are tried in turn: with few examples of a class, small ones are none."""


def divided(dataset: Dataset) -> tuple[Dataset, Splits]:
    """The splits, with larger shares of validation and test data where the usual ones would lack a class; and the data
    set with these shares. Raises ConfigError when none does, or the data is unfit."""
    first: ConfigError | None = None
    for shares in SHARES:
        fitting = dataset.model_copy(update=shares)
        try:
            return fitting, fitting.load()
        except ConfigError as error:
            first = first or error
            if "split would have no example" not in error.diagnostics[0].message:
                break
    assert first is not None
    raise first
