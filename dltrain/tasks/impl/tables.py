"""Rows of a report as aligned lines for a terminal, and as plain values."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import Any

from dltrain.config.diagnostics import cells

WIDEST = 28
"""Terminal cells of a name."""


def aligned(titles: Sequence[str], rows: Sequence[Sequence[str]], widest: int = WIDEST) -> list[str]:
    """A line of titles and one per row. The first column holds names, of `widest` cells at most, and begins at the
    left; the others end alike."""
    shown = [list(titles), *([fit(name, widest), *values] for name, *values in rows)]
    widths = [max(map(cells, column)) for column in zip(*shown, strict=True)]
    return [
        "  ".join([pad(row[0], widths[0]), *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:]))])
        for row in shown
    ]


def plain(value: Any) -> Any:
    """A value for JSON, which knows no number that is none."""
    return None if isinstance(value, float) and math.isnan(value) else value


def fit(name: str, width: int = WIDEST) -> str:
    """A name on one line, cut to a width in terminal cells."""
    name = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in name)
    if cells(name) <= width:
        return name
    while cells(name) > width - 1:
        name = name[:-1]
    return name + "…"


def pad(name: str, width: int) -> str:
    """A name with spaces up to a width in terminal cells."""
    return name + " " * (width - cells(name))
