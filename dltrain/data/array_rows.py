"""`inputs` of an .npz file: rows of numbers, as a table without a file of its own; and what is wrong with them."""

from __future__ import annotations

import numpy as np

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.tables.reading import Column, Table


def table_of(path: str, name: str, inputs: np.ndarray, features: list[str] | None) -> Table:
    """Rows of numbers (N, D). name: of the array. features: names of the columns; None: column_1, column_2 and so on.

    Raises ConfigError, which names the row and the column, for what is no number.
    """
    if inputs.dtype.kind not in "biuf":
        raise _error(path, f"`{name}` must be numbers, not {inputs.dtype}")
    if inputs.ndim != 2 or not inputs.size:
        pictures = "pictures are `images`, uint8 (N, H, W), (N, H, W, C) or (N, C, H, W)"
        notes = (
            [pictures] if inputs.ndim > 2 else [f"{name}.reshape(-1, 1) makes rows of one number"] * (inputs.ndim == 1)
        )
        raise _error(path, f"`{name}` must be rows of numbers, (N, D), not of shape {inputs.shape}", *notes)
    if features is not None and len(features) != inputs.shape[1]:
        raise _error(path, f"`features` are {len(features)} names, and a row of `{name}` has {inputs.shape[1]} numbers")
    names = features or [f"column_{number}" for number in range(1, inputs.shape[1] + 1)]
    values = inputs.astype(np.float64)
    if (wrong := ~np.isfinite(values)).any():
        row, column = np.argwhere(wrong)[0].tolist()
        what = f"`{name}[{row}, {column}]`, `{names[column]}`, is {values[row, column]}"
        note = f"{int(wrong.any(1).sum()):,} rows have such values: leave them out, or replace the values"
        raise _error(path, f"{what}: an input must be a number", note)
    columns = {name: Column(name, numbers=column) for name, column in zip(names, np.ascontiguousarray(values.T))}
    return Table(f"{path}: {name}", columns)


def _error(path: str, message: str, *notes: str) -> ConfigError:
    return ConfigError([Diagnostic(f"{path}: {message}", notes=notes)])
