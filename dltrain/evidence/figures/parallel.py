"""Parallel coordinates: every axis beside the others, and a line through them for each thing (Inselberg 1985)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from dltrain.evidence.figures.axes import Axis, scattered
from dltrain.evidence.figures.charts import SMALL, WIDE
from dltrain.evidence.figures.svg import cut, path, picture, tag, text, width

BOLD = 8.4
"""Width of an average character of a label, in units."""


@dataclass(frozen=True)
class Line:
    """One thing with a value on each axis; None: it has none. Lines that come later are drawn above."""

    values: Sequence[Any]
    text: str
    of: str
    colour: str = "s0"
    dashed: bool = False


def parallel(
    title: str, description: str, axes: Sequence[Axis], lines: Sequence[Line], *, upright: bool = True
) -> Markup:
    """A line for each thing through all axes.

    upright: axes stand side by side; else they lie one below the other, which suits a narrow page. Where some thing has
    no value on an axis, "not set" stands beyond its lower end.
    """
    wide, high = WIDE if upright else (SMALL[0], 40.0 + 88 * len(axes))
    start, end = (46.0, high - 44) if upright else (26.0, wide - 26)  # along an axis
    first, last = (70.0, wide - 90) if upright else (48.0, high - 34)  # from axis to axis
    gaps = [any(line.values[index] is None for line in lines) for index in range(len(axes))]

    def along(index: int, place: float | None) -> float:
        room = 64.0 if gaps[index] and not upright else 34.0 if gaps[index] else 0.0
        if upright:
            return end if place is None else end - room - place * (end - room - start)
        return start if place is None else start + room + place * (end - room - start)

    def corner(index: int, place: float | None) -> tuple[float, float]:
        across = first + (last - first) * index / max(len(axes) - 1, 1)
        return (across, along(index, place)) if upright else (along(index, place), across)

    parts = []
    for order, line in enumerate(lines):
        places = [
            None if value is None else scattered(axis, value, order)
            for axis, value in zip(axes, line.values, strict=True)
        ]
        d = path(corner(index, place) for index, place in enumerate(places))
        named = f"line mark thread {line.colour}" + (" dashed" if line.dashed else "")
        parts.append(tag("path", tag("title", line.text), class_=named, d=d, data_of=line.of))
    room = (last - first) / max(len(axes) - 1, 1)
    drawn = [_axis(axis, index, corner, gaps[index], room, upright) for index, axis in enumerate(axes)]
    return picture(title, description, (wide, high), tag("g", *parts, class_="threads"), *drawn)


def _axis(axis: Axis, index: int, corner: Any, gap: bool, room: float, upright: bool) -> Markup:
    """An axis with its name and ticks, and an area that a pointer can brush."""
    (x, y), (x1, y1) = corner(index, 0.0), corner(index, 1.0)
    parts = [tag("path", class_="axis", d=path([(x, y), (x1, y1)]))]
    ticks = axis.ticks(5 if upright else 4)
    if gap:
        ticks = [*ticks, (None, "not set")]  # type: ignore[list-item]
    most = max(int((room - 16) / 7), 5) if upright else max(int(360 / 7 / max(len(ticks), 1)), 4)
    taken = float("-inf")
    for place, words in ticks:
        tx, ty = corner(index, place)
        if upright:
            parts += [
                tag("path", class_="axis", d=f"M{tx - 4:.1f} {ty:.1f}h8"),
                text(words, tx + 7, ty + 4.5, most=most, class_="halo"),
            ]
            continue
        parts.append(tag("path", class_="axis", d=f"M{tx:.1f} {ty - 4:.1f}v8"))
        half = width(cut(words, most)) / 2
        if place is None or tx - half > taken:
            parts.append(text(words, tx, ty + 19, "middle", most=most, class_="halo"))
            taken = tx + half + 4 if place is not None else taken
    brush = {"x": x - 14, "y": y1, "width": 28.0, "height": y - y1} if upright else {}
    brush = brush or {"x": x, "y": y - 14, "width": x1 - x, "height": 28.0}
    parts.append(tag("rect", class_="brush", data_axis=index, data_upright=int(upright), **brush))
    if upright:
        row = 28.0 if index % 2 else 13.0  # long names of neighbours pass each other
        parts.append(text(axis.label, x, row, "middle", "label halo", most=max(int(2 * (room - 6) / BOLD), 6)))
    else:
        parts.append(text(axis.label, 26.0, y - 9, class_="label halo", most=50))
    return tag("g", *parts)
