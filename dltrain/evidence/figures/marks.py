"""What is drawn at a value: colours by name, shapes, and what is said of a mark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from markupsafe import Markup

from dltrain.evidence.figures.svg import coordinate, path, tag

Shape = Literal["circle", "ring", "diamond", "cross"]
Join = Literal["none", "straight", "step-after", "step-before"]
"""How points are joined; a step to the next point comes after the way across, or before it."""
SERIES = 8
"""Colours that tell series apart; the style sheet has them (Okabe and Ito, Color Universal Design, 2008)."""
RAMP = 7
"""Colours that tell more from less: one hue, ever further from the background."""


def of_series(index: int) -> str:
    """The colour of a series, by its place among the others."""
    return f"s{index % SERIES}"


def of_share(share: float) -> str:
    """The colour of a number from 0 (little, pale) to 1 (much)."""
    return f"r{min(max(int(share * RAMP), 0), RAMP - 1)}"


@dataclass(frozen=True)
class Point:
    """A value of a series. text: what is said of it. of: whose it is; marks of the same light up together, in every
    figure of a page. colour: its own, where the series' does not hold."""

    x: Any
    y: Any
    text: str = ""
    of: str | None = None
    colour: str | None = None


@dataclass(frozen=True)
class Series:
    """Points of one meaning.

    name: in the legend; empty: not there. shape: of each point; None: no marks. line: how points are joined. text, of:
    as a point's, of the whole line.
    """

    name: str
    points: Sequence[Point] = field(default_factory=list)
    colour: str = "s0"
    shape: Shape | None = "circle"
    line: Join = "none"
    dashed: bool = False
    text: str = ""
    of: str | None = None


def mark(
    shape: Shape, x: float, y: float, words: str = "", of: str | None = None, colour: str | None = None,
    turned: int | None = None,
) -> Markup:  # fmt: skip
    """A shape at a place. With words it can be pointed at and reached by the keyboard.

    turned: a triangle that points there, in degrees from upwards, instead of the shape: the value lies beyond.
    """
    title = (tag("title", words),) if words else ()
    named = " ".join(each for each in ("mark" if words else "", shape, colour or "") if each)
    if turned is not None:
        turn = f"rotate({turned} {coordinate(x)} {coordinate(y)})" if turned else None
        d = path([(x - 5.5, y + 4), (x + 5.5, y + 4), (x, y - 6)]) + "Z"
        return tag("path", *title, class_=named, d=d, transform=turn, data_of=of)
    if shape in ("circle", "ring"):
        return tag("circle", *title, class_=named, cx=x, cy=y, r=4.5, data_of=of)
    return tag("path", *title, class_=named, d=_outline(shape, x, y), data_of=of)


def _outline(shape: Shape, x: float, y: float) -> str:
    if shape == "cross":
        return path([(x - 4.5, y - 4.5), (x + 4.5, y + 4.5)]) + path([(x - 4.5, y + 4.5), (x + 4.5, y - 4.5)])
    return path([(x, y - 5.6), (x + 5.6, y), (x, y + 5.6), (x - 5.6, y)]) + "Z"


def joined(points: Sequence[tuple[float, float]], series: Series, top: float, bottom: float) -> Markup:
    """The line of a series through places; empty where there is none to be seen. A straight one is cut where it leaves
    the area between top and bottom."""
    d = "".join(map(path, _within(points, top, bottom)))
    if len(points) > 1 and series.line != "straight":
        step = "H{0}V{1}" if series.line == "step-after" else "V{1}H{0}"
        d = path(points[:1]) + "".join(step.format(coordinate(x), coordinate(y)) for x, y in points[1:])
    if not d:
        return Markup("")
    title = (tag("title", series.text),) if series.text else ()
    named = "line" + (" mark" if series.text else "") + (" dashed" if series.dashed else "")
    return tag("path", *title, class_=named, d=d, data_of=series.of)


def _within(points: Sequence[tuple[float, float]], top: float, bottom: float) -> list[list[tuple[float, float]]]:
    """The pieces of a line that lie between top and bottom (after Liang and Barsky 1984, in one direction)."""
    pieces = list[list[tuple[float, float]]]()
    for (x0, y0), (x1, y1) in pairwise(points):
        if max(y0, y1) < top or min(y0, y1) > bottom:
            continue
        ends = []
        for x, y in ((x0, y0), (x1, y1)):
            edge = min(max(y, top), bottom)
            ends.append((x, y) if edge == y else (x0 + (x1 - x0) * (edge - y0) / (y1 - y0), edge))
        if pieces and pieces[-1][-1] == ends[0]:
            pieces[-1].append(ends[1])
        else:
            pieces.append(ends)
    return pieces
