"""Rounds: what ranges become around the best trials, and what is drawn in them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dltrain.search import Condition, Range, Setting, Settings, Sweep, Told
from dltrain.search.narrowing import narrowed

RATE = Range(low=1e-5, high=1.0, log=True)


def told(
    key: str, drawn: list[Any], costs: list[float | None]
) -> list[tuple[dict[str, Any], tuple[float, ...] | None]]:
    return [({key: x}, None if cost is None else (cost,)) for x, cost in zip(drawn, costs, strict=True)]


def bounds(range_: Range, drawn: list[float], costs: list[float | None]) -> tuple[float, float]:
    found = narrowed({"x": range_}, {"x": range_}, told("x", drawn, costs))["x"]
    return found.bounds()


# -- shares of a range


@pytest.mark.parametrize(
    "range_",
    [
        RATE, Range(low=-2.0, high=3.0), Range(low=1, high=500, log=True), Range(low=3, high=9), Range(low=1, high=2),
        Range(low=0.1, high=0.45, step=0.1), Range(low=0, high=30, step=5),
    ],
    ids=str,
)  # fmt: skip
def test_a_share_of_a_range_and_its_value_are_inverse(range_: Range) -> None:
    for share in np.linspace(0, 1, 41).tolist():
        value = range_.at(share)
        low, high = range_.bounds()
        assert low <= value <= high and type(value) is (int if range_.is_integer else float)
        assert range_.at(range_.share(value)) == pytest.approx(value, rel=1e-12)
        if range_.size() is None:
            assert range_.share(value) == pytest.approx(share, abs=1e-12)
    assert (range_.at(0.0), range_.at(1.0)) == pytest.approx(range_.bounds())


def test_every_value_of_a_finite_range_has_the_same_share() -> None:
    shares = (np.arange(7000) + 0.5) / 7000
    values, counts = np.unique([Range(low=3, high=9).at(share) for share in shares], return_counts=True)
    assert values.tolist() == [3, 4, 5, 6, 7, 8, 9] and set(counts) == {1000}


# -- narrowing


def test_a_range_is_cut_to_what_the_best_quarter_spans_in_its_logarithm() -> None:
    drawn = np.logspace(-5, 0, 41).tolist()
    low, high = bounds(RATE, drawn, [abs(math.log10(x) + 2) for x in drawn])
    # eleven of 41 are the best quarter, each 1/8 of a decade from the next: 10/8 of a decade, and their share beyond
    assert math.log10(high / low) == pytest.approx(10 / 8 * 12 / 10, rel=1e-4)
    assert math.log10(low * high) / 2 == pytest.approx(-2, abs=1e-4)


def test_a_range_whose_values_do_not_matter_keeps_three_quarters() -> None:
    costs: list[float | None] = [math.sin(1000 * k) for k in range(64)]
    low, high = bounds(Range(low=0.0, high=1.0), [(k + 0.5) / 64 for k in range(64)], costs)
    assert 0.6 < high - low <= 0.75 + 1e-6


def test_a_range_keeps_a_quarter_at_least_and_stays_within() -> None:
    drawn = [k / 40 for k in range(9)]
    low, high = bounds(Range(low=0.0, high=1.0), [0.98, 0.99, 0.995, *drawn], [0.0, 0.1, 0.2, *[9.0] * 9])
    assert (low, high) == (0.75, 1.0)


def test_what_failed_counts_as_the_worst() -> None:
    drawn = [k / 16 for k in range(17)]
    costs = [None if x > 0.5 else -x for x in drawn]
    low, high = bounds(Range(low=0.0, high=1.0), drawn, costs)
    assert (low, high) == (0.1875, 0.5625)  # of 17 the best five that did not fail, and their share beyond
    assert bounds(Range(low=0.0, high=1.0), drawn, [None] * 17) == (0, 1)


def test_integers_and_steps_keep_their_values_and_two_of_them_at_least() -> None:
    drawn = [1, 2, 3, 4] * 3
    assert bounds(Range(low=1, high=4), drawn, [float(x != 3) for x in drawn]) == (3, 4)
    assert bounds(Range(low=1, high=4), drawn, [float(x != 4) for x in drawn]) == (3, 4)
    steps = [0.1, 0.2, 0.3, 0.4]
    low, high = bounds(Range(low=0.1, high=0.45, step=0.1), steps * 3, [abs(x - 0.2) for x in steps * 3])
    assert low in steps and high in steps and low <= 0.2 <= high < 0.4
    assert bounds(Range(low=1, high=2), [1, 2, 1, 2], [0.0, 1.0, 0.0, 1.0]) == (1, 2)


@given(
    drawn=st.lists(st.floats(1e-5, 1.0), min_size=2, max_size=40), seed=st.integers(0, 1000),
    range_=st.sampled_from([RATE, Range(low=0.0, high=1.0), Range(low=1e-5, high=1.0)]),
)  # fmt: skip
def test_ranges_are_nested_shrink_and_hold_the_best_trial(drawn: list[float], seed: int, range_: Range) -> None:
    costs = np.random.default_rng(seed).random(len(drawn)).tolist()
    drawn = [range_.value(x) for x in drawn]
    trials = told("x", drawn, costs)
    first = narrowed({"x": range_}, {"x": range_}, trials)["x"]
    second = narrowed({"x": first}, {"x": range_}, trials)["x"]
    best = drawn[int(np.argmin(costs))]
    before = range_.bounds()
    for after in (first.bounds(), second.bounds()):
        assert before[0] <= after[0] <= best <= after[1] <= before[1]
        before = after
    width = range_.share(first.bounds()[1]) - range_.share(first.bounds()[0])
    assert 0.25 - 1e-3 <= width <= 0.75 + 1e-3


def test_choices_that_are_clearly_worse_are_dropped_and_no_others() -> None:
    space = {"c": Range(choices=["good", "bad", "rare", {"name": "fair"}])}

    def left(pairs: list[tuple[int, float | None]]) -> list[Any] | None:
        return narrowed(space, space, told("c", [p for p, _ in pairs], [c for _, c in pairs]))["c"].choices

    many = [(0, 1.0), (3, 2.0)] * 5 + [(1, 9.0)] * 5
    assert left([*many, (2, 8.0)]) == ["good", "rare", {"name": "fair"}]
    assert left([*many[:-1], (2, 8.0)]) == ["good", "bad", "rare", {"name": "fair"}], "four trials are not enough"
    assert left([(p, None if p == 1 else c) for p, c in many]) == ["good", "rare", {"name": "fair"}]
    assert left([*many[:-1], (1, 0.5)]) == space["c"].choices, "one of them is in the better half"
    assert left([(place, None) for place in (0, 1, 2, 3) for _ in range(5)]) == space["c"].choices


def test_several_objectives_narrow_around_the_pareto_front() -> None:
    """x trades one for the other, and y makes both worse."""
    rng = np.random.default_rng(0)
    drawn = [{"x": float(x), "y": float(y)} for x, y in rng.random((48, 2))]
    trials = [(one, (one["x"] + one["y"], 1 - one["x"] + one["y"])) for one in drawn]
    space = {key: Range(low=0.0, high=1.0) for key in "xy"}
    found = narrowed(space, space, trials)
    assert found["y"].bounds()[1] < 0.5
    assert np.subtract(*found["x"].bounds()[::-1]) > 0.6


# -- the rounds of a sweep


def run(sweep: Sweep, cost: Any, seed: int = 0) -> tuple[list[Setting], list[Told], Settings]:
    drawing, trials, found = Settings(sweep, seed), list[Told](), list[Setting]()
    for index in range(sweep.trials):
        setting = drawing.draw(index, trials)
        assert setting is not None
        found.append(setting)
        trials.append(Told(index, setting.drawn, (cost(setting.values),), True))
    return found, trials, drawing


def test_trials_are_split_evenly_and_wait_for_the_rounds_before() -> None:
    drawing = Settings(Sweep(space={"x": RATE}, trials=20, rounds=3), 0)
    assert [drawing.round_of(index) for index in range(20)] == [0] * 6 + [1] * 7 + [2] * 7
    assert [drawing.waits_for(index) for index in (0, 5, 6, 12, 13, 19, 25)] == [0, 0, 6, 6, 13, 13, 13]
    assert Settings(Sweep(space={"x": RATE}), 0).waits_for(50) == 0


@pytest.mark.parametrize("sampler", ["random", "quasi_random", "tpe", "cma_es"])
def test_a_sweep_in_rounds_draws_in_nested_ranges_and_finds_more(sampler: str) -> None:
    space = {"rate": RATE, "share": Range(low=0.0, high=1.0), "kind": Range(choices=["a", "b", "c"])}

    def cost(values: dict[str, Any]) -> float:
        kinds = {"a": 0.0, "b": 0.1, "c": 3.0}
        return (math.log10(values["rate"]) + 2) ** 2 + (values["share"] - 0.8) ** 2 + kinds[values["kind"]]

    sweep = Sweep.model_validate({"space": space, "trials": 60, "rounds": 3, "sampler": {"name": sampler}})
    found, trials, drawing = run(sweep, cost)
    boxes = [drawing.ranges(round_, trials) for round_ in range(3)]
    assert boxes[0] == space and "c" not in (boxes[2]["kind"].choices or [])
    for key in ("rate", "share"):
        lows, highs = zip(*(box[key].bounds() for box in boxes), strict=True)
        assert list(lows) == sorted(lows) and list(highs) == sorted(highs, reverse=True)
    for setting in found:
        for key in ("rate", "share"):
            low, high = boxes[setting.round][key].bounds()
            assert low <= setting.values[key] <= high
        assert setting.values["kind"] in (boxes[setting.round]["kind"].choices or [])
    means = [np.mean([cost(setting.values) for setting in found if setting.round == r]) for r in range(3)]
    assert means[2] < 0.5 * means[0]


def test_the_ranges_of_a_round_are_a_function_of_the_trials_before_it() -> None:
    sweep = Sweep(space={"x": RATE}, trials=30, rounds=3)
    _, trials, drawing = run(sweep, lambda values: values["x"])
    again = Settings(sweep, 5)
    assert again.ranges(1, trials[:10][::-1]) == drawing.ranges(1, trials)
    assert again.ranges(2, trials[:20]) == drawing.ranges(2, trials) != drawing.ranges(1, trials)
    assert drawing.draw(25, trials[:20]) == Settings(sweep, 0).draw(25, trials)


def test_a_key_narrows_by_the_trials_in_which_it_takes_part() -> None:
    space = {"name": Range(choices=["sgd", "adam"]), "momentum": Range(low=0.0, high=1.0)}
    sweep = Sweep(space=space, trials=40, rounds=2).under({"momentum": Condition(("name",), frozenset({(0,)}))})

    def cost(values: dict[str, Any]) -> float:
        return 5 + abs(values["momentum"] - 0.9) if values["name"] == "sgd" else 0.1

    drawing, trials = Settings(sweep, 0), list[Told]()
    for index in range(10):  # adam has one setting, which is better than all of sgd
        setting = drawing.draw(index, trials)
        assert setting is not None
        trials.append(Told(index, setting.drawn, (cost(setting.values),), True))
    assert drawing.ranges(1, trials)["momentum"].bounds()[0] > 0.1


def test_a_space_that_narrows_to_what_is_tried_gives_the_rest_of_the_whole() -> None:
    sweep = Sweep(space={"x": Range(low=1, high=12)}, trials=12, rounds=3)
    found, _, drawing = run(sweep, lambda values: abs(values["x"] - 6))
    assert sorted(setting.values["x"] for setting in found) == list(range(1, 13))
    assert drawing.draw(12, [Told(k, one.drawn, (1.0,), True) for k, one in enumerate(found)]) is None
