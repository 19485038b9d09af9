"""Charts of two axes: lines and scattered points, histograms, and bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from dltrain.evidence.figures.axes import Axis, Names, Numbers, number, scattered
from dltrain.evidence.figures.frame import LINE, Frame, legend
from dltrain.evidence.figures.marks import Series, joined, mark
from dltrain.evidence.figures.svg import cut, picture, tag, text, width

WIDE = (1100.0, 340.0)
"""Width and height of a figure that fills a page, in units."""
SMALL = (440.0, 320.0)
"""Of one that stands beside others, or on a telephone."""

TURNS = {(0, 1): 0, (1, 1): 45, (1, 0): 90, (1, -1): 135, (0, -1): 180, (-1, -1): 225, (-1, 0): 270, (-1, 1): 315}
"""Where a mark points whose value lies beyond the axes, in degrees from upwards, by (across, up)."""


@dataclass(frozen=True)
class Strip:
    """Intervals of the horizontal axis, drawn below the values. pieces: (from, to), as places from 0 to 1."""

    name: str
    pieces: Sequence[tuple[float, float]]
    colour: str = "s0"


def chart(
    title: str, description: str, x: Axis, y: Axis, series: Sequence[Series], size: tuple[float, float] = WIDE, *,
    strips: Sequence[Strip] = (), dividers: Sequence[tuple[Any, str]] = (),
) -> Markup:  # fmt: skip
    """Series over two axes: curves, scattered points, or both. Points that are no finite numbers are left out.

    strips: intervals below the values. dividers: values of the horizontal axis, each with the name of what begins.
    """
    key, above = legend(series, size[0])
    row = LINE if dividers else 0.0
    below = 13.0 * len(strips) + (6 if strips else 0)
    frame = Frame.around(x, y, size, above=above + row, below=below)
    parts = [key, frame.drawn(above=row, below=below, grid_x=not isinstance(x, Names)), frame.named(size[1])]
    for value, name in dividers:
        at = frame.x(value)
        parts.append(tag("path", class_="divider", d=f"M{at:.1f} {frame.top - LINE:.1f}V{frame.bottom:.1f}"))
        parts.append(text(name, at + 4, frame.top - LINE + 11, class_="small"))
    parts += [_strip(strip, frame, frame.bottom + 9 + 13.0 * row) for row, strip in enumerate(strips)]
    parts += [_drawn(each, frame) for each in series]
    return picture(title, description, size, *parts)


def _strip(strip: Strip, frame: Frame, y: float) -> Markup:
    bars = [
        tag("rect", tag("title", strip.name), class_="bar mark", x=frame.across(a), y=y - 4,
            width=max(frame.across(b) - frame.across(a), 2.0), height=8.0, rx=2)
        for a, b in strip.pieces
    ]  # fmt: skip
    return tag("g", *bars, class_=f"strip {strip.colour}")


def _drawn(series: Series, frame: Frame) -> Markup:
    points = [p for p in series.points if _finite(p.x) and _finite(p.y)]
    across = [frame.across(scattered(frame.x_axis, p.x, index)) for index, p in enumerate(points)]
    line, shape = Markup(""), series.shape
    if series.line != "none":
        place = frame.y_axis.unbounded if series.line == "straight" else frame.y_axis.place
        heights = [frame.height(place(point.y)) for point in points]
        line = joined(list(zip(across, heights, strict=True)), series, frame.top, frame.bottom)
        if not line:  # one point, or all of it beyond the axis: without a mark at its end it would not be seen
            last = [replace(p, text=p.text or series.text, of=p.of or series.of) for p in points[-1:]]
            points, across, shape = last, across[-1:], shape or "circle"
    marks = [
        mark(shape, x, frame.y(p.y), p.text, p.of, p.colour,
             TURNS.get((frame.x_axis.beyond(p.x), frame.y_axis.beyond(p.y))))
        for p, x in zip(points, across, strict=True)
        if shape is not None
    ]  # fmt: skip
    return tag("g", line, *marks, class_=series.colour)


def _finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


@dataclass(frozen=True)
class Bar:
    """A bar from 0 to `value`. text: what stands at its end; None: the number. note: what is said of it."""

    name: str
    value: float
    text: str | None = None
    note: str = ""
    colour: str = "s0"


def bars(
    title: str, description: str, rows: Sequence[Bar], size: float = 620.0, *, most: float | None = None
) -> Markup:
    """Lying bars, one a row, in their order. size: width in units. most: the longest that there could be."""
    longest = max([*(row.value for row in rows if math.isfinite(row.value)), 1e-300]) if most is None else most
    room = max((width(cut(row.name, 30)) for row in rows), default=0) + 16
    ends = [number(row.value) if row.text is None else row.text for row in rows]
    tail = max(map(width, ends), default=0) + 12
    parts = []
    for index, (row, end) in enumerate(zip(rows, ends, strict=True)):
        y = 4 + 26.0 * index
        long = max(row.value, 0.0) / longest * (size - room - tail) if math.isfinite(row.value) else 0.0
        title_of = (tag("title", row.note or f"{row.name}: {end}"),)
        parts.append(text(row.name, room - 8, y + 15, "end", most=30))
        bar = tag("rect", *title_of, class_="bar mark", x=room, y=y + 2, width=max(long, 1.0), height=17.0, rx=2)
        parts.append(tag("g", bar, class_=row.colour))
        parts.append(text(end, room + long + 6, y + 15))
    return picture(title, description, (size, 8 + 26.0 * len(rows)), *parts)


def histogram(
    title: str, description: str, label: str, values: Sequence[float], size: tuple[float, float] = SMALL, *,
    bins: int | None = None,
) -> Markup:  # fmt: skip
    """How often values lie where. bins: how many; None: the square root of their number, from 5 to 50. Values that are
    no finite numbers are left out."""
    finite = sorted(float(value) for value in values if math.isfinite(value))
    count = bins or min(max(math.isqrt(len(finite)), 5), 50)
    x = Numbers.of(label, finite, margin=0.0)
    tall = [0] * count
    for value in finite:
        tall[min(int(x.place(value) * count), count - 1)] += 1
    y = replace(Numbers.of("how many", [0, *tall], whole=True), low=0.0)
    frame = Frame.around(x, y, size)
    parts = [frame.drawn(grid_x=False), frame.named(size[1])]
    step = (x.high - x.low) / count
    for index, height in enumerate(tall):
        low = x.low + index * step
        words = f"{number(low, step / 10)} to {number(low + step, step / 10)}: {height}"
        left, right = frame.across(index / count), frame.across((index + 1) / count)
        parts.append(
            tag("rect", tag("title", words), class_="bar mark s0", x=left + 0.5, y=frame.y(height),
                width=max(right - left - 1, 1.0), height=frame.bottom - frame.y(height))
        )  # fmt: skip
    return picture(title, description, size, *parts)
