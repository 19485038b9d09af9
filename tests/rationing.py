"""Parameters of which the tests of every day take some, and the slow ones the others."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def some(values: Iterable[Any], each: int) -> list[Any]:
    """One value of `each` for every day, the first among them."""
    return [_param(value, place % each == 0) for place, value in enumerate(values)]


def only(daily: Collection[Any], values: Iterable[Any]) -> list[Any]:
    """Those of the values that are in `daily` for every day."""
    return [_param(value, value in daily) for value in values]


def except_for(rare: Collection[Any], values: Iterable[Any]) -> list[Any]:
    """Those of the values that are not in `rare` for every day."""
    return [_param(value, value not in rare) for value in values]


def _param(value: Any, daily: bool) -> Any:
    name = getattr(value, "stem", None) or getattr(value, "__name__", str(value))  # of a file, of a class
    return pytest.param(value, marks=[] if daily else [pytest.mark.slow], id=name)
