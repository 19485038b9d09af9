"""Figures: what is drawn is what was given, and nothing in it can break out."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from dltrain.evidence.figures import (
    Bar,
    Line,
    Names,
    Numbers,
    Point,
    Series,
    Strip,
    bars,
    chart,
    heat_map,
    histogram,
    parallel,
)

NASTY = '<script>alert("1")</script>&"\''
X, Y = Numbers("x", 0.0, 10.0), Numbers("y", 0.0, 1.0)


def read(figure: str) -> ElementTree.Element:
    """The figure, parsed by an XML parser: it is well-formed, and no number in it is broken."""
    root = ElementTree.fromstring(figure)
    assert not re.search(r'="[^"]*\b(nan|inf)\b', figure)
    assert root.findtext("title")
    assert root.findtext("desc")
    assert root.get("tabindex") == "0"
    return root


def marks(root: ElementTree.Element) -> list[ElementTree.Element]:
    return [each for each in root.iter() if "mark" in each.get("class", "").split()]


def test_a_chart_draws_each_finite_point_at_its_place() -> None:
    points = [Point(0.0, 0.0, "a", of="t1"), Point(10.0, 1.0, "b"), Point(5.0, math.nan, "c"), Point(5.0, 0.5, "d")]
    root = read(chart("Title", "About", X, Y, [Series("s", points)]))
    drawn = marks(root)
    assert [each.findtext("title") for each in drawn] == ["a", "b", "d"]
    first, last, middle = [(float(each.get("cx", "")), float(each.get("cy", ""))) for each in drawn]
    assert first[0] < middle[0] < last[0]
    assert first[1] > middle[1] > last[1]  # down is more in SVG
    assert middle[0] == pytest.approx((first[0] + last[0]) / 2, abs=0.1)
    assert drawn[0].get("data-of") == "t1"


def test_values_beyond_an_axis_are_marked_as_such() -> None:
    root = read(chart("Title", "About", X, Y, [Series("s", [Point(5.0, -3.0, "low"), Point(5.0, 9.0, "high")])]))
    low, high = marks(root)
    assert low.tag == high.tag == "path"
    assert "rotate(180 " in low.get("transform", "")
    assert high.get("transform") is None


def test_curves_are_joined_and_a_curve_of_one_point_is_seen() -> None:
    line = Series("loss", [Point(float(x), x / 10) for x in range(11)], shape=None, line="straight", text="run 1")
    lonely = Series("lonely", [Point(3.0, 0.3)], "s1", None, "straight", text="run 2", of="t2")
    root = read(chart("Title", "About", X, Y, [line, lonely]))
    curve, dot = marks(root)
    assert curve.get("d", "").count("L") == 10
    assert (dot.tag, dot.findtext("title"), dot.get("data-of")) == ("circle", "run 2", "t2")
    names = [each.text for each in root.iter("text")]
    assert {"loss", "lonely"} <= set(names)


def test_a_curve_is_cut_where_it_leaves_the_axis() -> None:
    points = [
        Point(0.0, 0.5),
        Point(2.0, 1.5),
        Point(4.0, 1.5),
        Point(6.0, 0.5),
        Point(8.0, -0.5),
        Point(10.0, math.nan),
    ]
    root = read(chart("T", "D", X, Y, [Series("s", points, shape=None, line="straight", text="s")]))
    (curve,) = marks(root)
    pieces = [[tuple(map(float, p.split())) for p in each.split("L")] for each in curve.get("d", "").split("M")[1:]]
    (first, second), (third, fourth, fifth) = pieces
    assert second[1] == third[1] < first[1] == fourth[1] < fifth[1]
    assert (second[0] - first[0]) == pytest.approx((fourth[0] - first[0]) / 6, abs=0.2)
    assert (third[0] - first[0]) == pytest.approx((fourth[0] - first[0]) * 5 / 6, abs=0.2)


def test_a_curve_beyond_the_axis_has_a_mark_at_its_end() -> None:
    points = [Point(float(x), 5.0 + x) for x in range(5)]
    root = read(chart("T", "D", X, Y, [Series("s", points, shape=None, line="straight", text="run 1", of="t1")]))
    (end,) = marks(root)
    assert (end.findtext("title"), end.get("data-of"), end.get("class")) == ("run 1", "t1", "mark circle")
    assert end.tag == "path"  # a triangle: the value lies beyond


def test_steps_go_across_first_or_last() -> None:
    points = [Point(0.0, 0.0), Point(10.0, 1.0)]
    for line, steps in (("step-after", r"M[\d. ]+H[\d.]+V[\d.]+"), ("step-before", r"M[\d. ]+V[\d.]+H[\d.]+")):
        root = read(chart("T", "D", X, Y, [Series("s", points, shape=None, line=line)]))
        drawn = [each.get("d", "") for each in root.iter("path") if each.get("class") == "line"]
        assert len(drawn) == 1
        assert re.fullmatch(steps, drawn[0])


def test_equal_values_of_a_name_can_be_told_apart() -> None:
    axis = Names("optimizer", ["sgd", "adam"])
    root = read(chart("T", "D", axis, Y, [Series("s", [Point("sgd", 0.5, str(i)) for i in range(30)])]))
    places = sorted(float(each.get("cx", "")) for each in marks(root))
    assert len(set(places)) == 30
    adam = float(next(each for each in root.iter("text") if each.text == "adam").get("x", ""))
    assert places[-1] < adam


def test_strips_lie_below_the_values_where_they_say() -> None:
    strips = [Strip("round 1", [(0.0, 1.0)]), Strip("round 2", [(0.2, 0.4), (0.6, 0.7)])]
    root = read(chart("T", "D", X, Y, [Series("s", [Point(0.0, 0.0, "low")])], strips=strips))
    whole, first, second = [each for each in marks(root) if each.tag == "rect"]
    length = float(whole.get("width", ""))
    assert float(first.get("width", "")) == pytest.approx(0.2 * length, abs=0.2)
    assert float(second.get("x", "")) - float(whole.get("x", "")) == pytest.approx(0.6 * length, abs=0.2)
    lowest = float(next(each for each in marks(root) if each.tag == "circle").get("cy", ""))
    assert float(first.get("y", "")) > float(whole.get("y", "")) > lowest


def test_bars_are_as_long_as_their_numbers() -> None:
    rows = [Bar("a", 4.0), Bar("b", 1.0), Bar("c", 0.0), Bar("d", math.nan, "unknown")]
    widths = [float(each.get("width", "")) for each in marks(read(bars("T", "D", rows)))]
    assert widths[0] == pytest.approx(4 * widths[1], abs=0.3)
    assert widths[2:] == [1.0, 1.0]
    half = marks(read(bars("T", "D", rows[:1], most=8.0)))[0]
    assert float(half.get("width", "")) == pytest.approx(widths[0] / 2, rel=0.2)


def test_a_histogram_counts_like_numpy() -> None:
    values = np.random.default_rng(0).normal(size=500)
    root = read(histogram("T", "D", "error", [*values.tolist(), math.nan], bins=12))
    told = [int(str(each.findtext("title")).rsplit(": ")[-1]) for each in marks(root)]
    assert told == np.histogram(values, bins=12)[0].tolist()


def test_parallel_coordinates_lead_every_line_through_every_axis() -> None:
    axes = [Numbers("lr", 1e-4, 1.0, log=True), Names("optimizer", ["sgd", "adam"]), Numbers("momentum", 0.0, 1.0)]
    lines = [Line([1e-4, "sgd", 0.0], "a", "t1"), Line([1.0, "adam", None], "b", "t2", dashed=True)]
    for upright in (True, False):
        root = read(parallel("T", "D", axes, lines, upright=upright))
        first, second = marks(root)
        places = [
            [tuple(map(float, pair.split())) for pair in re.findall(r"[ML]([^ML]+)", each.get("d", ""))]
            for each in (first, second)
        ]
        assert [len(each) for each in places] == [3, 3]
        along = [[point[1 if upright else 0] for point in each] for each in places]
        ahead = (lambda a, b: a > b) if upright else (lambda a, b: a < b)
        assert ahead(along[0][0], along[1][0])  # the smaller value is nearer to the lower end
        assert ahead(along[1][2], along[0][2])  # and what is not set lies beyond it
        assert "not set" in [each.text for each in root.iter("text")]
        assert len([each for each in root.iter("rect") if each.get("class") == "brush"]) == 3


def test_a_heat_map_has_a_cell_for_each_number() -> None:
    cells = [[50, 0, 1], [0, 3, 0], [2, 2, 4]]
    names = ["cat", "dog", "frog"]
    figure = heat_map("T", "D", names, names, cells, row_label="true", of=lambda row, column: f"{row}-{column}")
    drawn = marks(read(figure))
    assert len(drawn) == 9
    assert drawn[2].findtext("title") == "cat, frog: 1"
    assert drawn[7].get("data-of") == "2-1"
    colours = re.findall(r'<g class="(\w+)"><rect class="cell', figure)
    assert colours == ["r6", "empty", "r0", "empty", "r6", "empty", "r3", "r3", "r4"]  # by the share of the row


def test_all_words_are_escaped() -> None:
    axis = Names(NASTY, [NASTY, "other"])
    figures = [
        chart(NASTY, NASTY, axis, Numbers(NASTY, 0, 1), [Series(NASTY, [Point(NASTY, 0.5, NASTY, NASTY)]), Series("b")],
              strips=[Strip(NASTY, [(0, 1)])], dividers=[(NASTY, NASTY)]),
        bars(NASTY, NASTY, [Bar(NASTY, 1.0, NASTY, NASTY)]),
        histogram(NASTY, NASTY, NASTY, [1.0, 2.0]),
        parallel(NASTY, NASTY, [axis, axis], [Line([NASTY, None], NASTY, NASTY)]),
        heat_map(NASTY, NASTY, [NASTY], [NASTY], [[1]], row_label=NASTY, column_label=NASTY),
    ]  # fmt: skip
    for figure in figures:
        assert "<script" not in figure
        assert read(figure).findtext("title") == NASTY
