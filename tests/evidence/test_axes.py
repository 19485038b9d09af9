"""Axes: where values stand, and what is written beside them."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dltrain.evidence.figures import Names, Numbers, number


@given(
    st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 12), st.booleans(), st.booleans()
)  # fmt: skip
def test_ticks_lie_on_the_axis_in_order_and_can_be_told_apart(
    low: float, length: float, count: int, log: bool, whole: bool
) -> None:
    low = abs(low) + 1e-9 if log else low
    length = max(length, abs(low) * 1e-6, 1.0 if whole else 0.0)  # shorter ones need more digits than anyone reads
    ticks = Numbers("x", low, low + length, log, whole).ticks(count)
    places = [place for place, _ in ticks]
    assert all(0 <= place <= 1 for place in places)
    assert all(a < b for a, b in itertools.pairwise(places))
    assert len({words for _, words in ticks}) == len(ticks) <= max(2 * count + 2, 6)
    assert len(ticks) >= (0 if whole or log else 1)
    for place, words in ticks:
        assert Numbers("x", low, low + length, log).place(float(words.replace(",", ""))) == pytest.approx(
            place, abs=1e-3
        )


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (Numbers("lr", 1e-5, 1.0, log=True), ["1e-5", "0.0001", "0.001", "0.01", "0.1", "1"]),
        (Numbers("batch", 16, 512, log=True, whole=True), ["20", "50", "100", "200", "500"]),
        (Numbers("loss", 0.42, 0.57), ["0.45", "0.50", "0.55"]),
        (Numbers("epoch", 0.9, 4.1, whole=True), ["1", "2", "3", "4"]),
        (Numbers("steps", 0, 40_000), ["0", "10,000", "20,000", "30,000", "40,000"]),
        (Numbers("lr", 0.011, 0.019, log=True), ["0.012", "0.014", "0.016", "0.018"]),
        (Numbers("loss", 0.27, 1.2, log=True), ["0.4", "0.6", "0.8", "1.0", "1.2"]),
        (Numbers("lr", 1e-3, 30.0, log=True), ["0.001", "0.01", "0.1", "1", "10"]),
        (Numbers("weight decay", 1e-9, 1.0, log=True), ["1e-9", "1e-7", "1e-5", "0.001", "0.1"]),
    ],
)
def test_ticks_are_round(axis: Numbers, expected: list[str]) -> None:
    assert [words for _, words in axis.ticks(6 if axis.log else 4)] == expected


def test_a_logarithmic_axis_places_by_the_logarithm() -> None:
    axis = Numbers("lr", 1e-4, 1.0, log=True)
    assert [axis.place(value) for value in (1e-4, 1e-3, 1e-2, 1.0)] == pytest.approx([0, 0.25, 0.5, 1])
    assert axis.place(0.0) == axis.place(-1.0) == 0.0


def test_an_axis_of_values_holds_the_finite_ones_and_chooses_its_scale() -> None:
    axis = Numbers.of("loss", [math.nan, 2.0, math.inf, 4.0])
    assert axis.low < 2.0 < 4.0 < axis.high < 4.2
    assert Numbers.of("loss", [0.01, 3.0, 900.0], log=None).log
    assert not Numbers.of("loss", [0.0, 3.0, 900.0], log=None).log
    assert not Numbers.of("loss", [0.5, 3.0], log=None).log
    for values in ([], [math.nan], [0.0], [7.0, 7.0]):
        empty = Numbers.of("loss", values)
        assert empty.low < empty.high
        assert empty.ticks(4)


def test_far_worse_values_do_not_stretch_a_fenced_axis() -> None:
    values = [0.90, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97, -80.0]
    fenced = Numbers.of("r2", values, fence="low")
    assert 0.89 < fenced.low < 0.90
    assert fenced.place(-80.0) == 0.0
    assert (fenced.beyond(-80.0), fenced.beyond(0.93), fenced.beyond(2.0)) == (-1, 0, 1)
    assert Numbers.of("r2", values).beyond(-80.0) == 0
    assert Numbers.of("r2", [0.9, -80.0], fence="low").beyond(-80.0) == 0  # of two, neither is the odd one


def test_names_have_a_place_each() -> None:
    axis = Names("optimizer", ["sgd", "adam"])
    assert axis.ticks(1) == [(0.25, "sgd"), (0.75, "adam")]
    with pytest.raises(ValueError, match="lion"):
        axis.place("lion")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (0.05, "0.05"),
        (1234.0, "1,234"),
        (2.5e-7, "2.5e-7"),
        (1e6, "1e6"),
        (-3.5, "-3.5"),
        (0.123456, "0.1235"),
    ],
)
def test_numbers_are_written_for_people(value: float, words: str) -> None:
    assert number(value) == words


def test_a_short_logarithmic_axis_keeps_to_powers_of_ten() -> None:
    """Even steps would stand at its upper end alone."""
    assert [words for _, words in Numbers("lr", 1e-3, 30.0, log=True).ticks(4)] == ["0.001", "0.1", "10"]
    assert [words for _, words in Numbers("lr", 2e-4, 30.0, log=True).ticks(3)] == ["0.001", "0.1", "10"]
    assert [words for _, words in Numbers("lr", 2e-4, 30.0, log=True).ticks(2)] == ["0.001", "1"]
