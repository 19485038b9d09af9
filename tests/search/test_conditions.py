"""Spaces with keys that take part only under some choices: their settings, and what is told of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dltrain.search import Condition, Range, Space

RANGES = {
    "a": Range(choices=["x", "y", True, 1]),
    "a.b": Range(choices=[None, {"name": "q"}, {"name": "r"}]),
    "a.b.c": Range(low=1, high=3),
    "d": Range(low=0.0, high=1.0, step=0.5),
}
NESTED = Space(
    RANGES,
    {
        "a.b.c": Condition(("a", "a.b"), frozenset({(0, 1), (1, 2), (3, None)})),
        "a.b": Condition(("a",), frozenset({(0,), (1,)})),
    },
)
"""`a.b` is of the first two choices of `a`; `a.b.c` of one of its choices in each, and of the last choice alone."""


def test_the_size_is_the_number_of_settings_that_differ() -> None:
    every = list(NESTED.every(NESTED.drawable()))
    told = {NESTED.identity(drawn) for drawn in every}
    # x: null, q with three, r; y: null, q, r with three; true: one; 1: three. Each with three values of d.
    assert NESTED.size() == len(every) == len(told) == (5 + 5 + 1 + 3) * 3
    assert Space(RANGES).size() == 4 * 3 * 3 * 3
    assert Space({**RANGES, "d": Range(low=0.0, high=1.0)}, NESTED.conditions).size() is None


@pytest.mark.parametrize("drawn", list(NESTED.every(NESTED.drawable()))[::5], ids=str)
def test_values_tell_what_was_drawn(drawn: dict[str, Any]) -> None:
    """Also after they were written down, where true and 1 differ."""
    values = NESTED.values(drawn)
    read = json.loads(json.dumps(values))
    assert NESTED.drawn(read) == drawn and NESTED.is_whole(read) and NESTED.holds(drawn)
    for key in values:
        assert not NESTED.is_whole({other: value for other, value in read.items() if other != key})
    assert NESTED.is_whole({**read, "a.b.c": 1}) == ("a.b.c" in values)


def test_narrower_ranges_tell_choices_by_their_place_in_the_whole() -> None:
    narrow = Space({**RANGES, "a": Range(choices=["y", 1]), "d": Range(low=0.0, high=0.5, step=0.5)}, {}, RANGES)
    assert narrow.places["a"] == (1, 3) and narrow.values({"a": 3, "d": 0.5}) == {"a": 1, "d": 0.5}
    assert narrow.holds({"a": 1, "d": 0.5})
    assert not narrow.holds({"a": 0, "d": 0.5}) and not narrow.holds({"a": 1, "d": 1.0})
    assert narrow.at({"a": 0.2, "d": 1.0}) == {"a": 1, "d": 0.5} and narrow.at({"a": 0.7, "d": 0.0}) == {"a": 3, "d": 0}


def test_a_key_that_must_take_part_changes_the_choices_above_it() -> None:
    values = {"a": True, "a.b": None, "a.b.c": 2, "d": 0.5}
    assert NESTED.taking_part(values) == {"a": True, "d": 0.5}
    found = NESTED.taking("a.b.c", values)
    assert found["a.b.c"] == 2 and found["d"] == 0.5
    assert NESTED.taking("d", values) == {"a": True, "d": 0.5}
