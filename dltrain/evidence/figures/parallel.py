"""Parallel coordinates: every axis beside the others, and a line through them for each thing (Inselberg 1985)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from dltrain.evidence.figures.axes import Axis, scattered
from dltrain.evidence.figures.charts import SMALL, WIDE
from dltrain.evidence.figures.svg import CHARACTER, cut, path, picture, tag, text, width

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
    gaps = [any(line.values[index] is None for line in lines) for index in range(len(axes))]
    layout = (_Upright if upright else _Lying)(axes, gaps)
    threads = []
    for order, line in enumerate(lines):
        pairs = zip(axes, line.values, strict=True)
        places = [None if value is None else scattered(axis, value, order) for axis, value in pairs]
        named = f"line mark thread {line.colour}" + (" dashed" if line.dashed else "")
        d = path(layout.corner(index, place) for index, place in enumerate(places))
        threads.append(tag("path", tag("title", line.text), class_=named, d=d, data_of=line.of))
    drawn = [tag("g", *layout.axis(index)) for index in range(len(axes))]
    return picture(title, description, layout.size, tag("g", *threads, class_="threads"), *drawn)


class _Upright:
    """Where things are when the axes stand side by side. gaps: which of them have a place for what is not set."""

    def __init__(self, axes: Sequence[Axis], gaps: Sequence[bool]) -> None:
        self.axes, self.gaps, self.size = axes, gaps, WIDE
        self.top, self.bottom, self.left = 46.0, WIDE[1] - 44, 70.0
        self.step = (WIDE[0] - 160) / max(len(axes) - 1, 1)
        self.crowded = any(len(axis.label) * BOLD > self.step - 6 for axis in axes)

    def corner(self, index: int, place: float | None) -> tuple[float, float]:
        """Where a line crosses an axis; place None: where its value is not set."""
        low = self.bottom - (34 if self.gaps[index] else 0)
        return self.left + index * self.step, self.bottom if place is None else low - place * (low - self.top)

    def axis(self, index: int) -> list[Markup]:
        """An axis with its name and ticks, and an area that a pointer can brush."""
        (x, low), (_, high) = self.corner(index, 0.0), self.corner(index, 1.0)
        parts = [tag("path", class_="axis", d=path([(x, low), (x, high)]))]
        most = max(int((self.step - 16) / CHARACTER), 5)
        marks: list[tuple[float | None, str]] = [*self.axes[index].ticks(5)]
        for place, words in [*marks, (None, "not set")] if self.gaps[index] else marks:
            _, y = self.corner(index, place)
            parts.append(tag("path", class_="axis", d=f"M{x - 4:.1f} {y:.1f}h8"))
            parts.append(text(words, x + 7, y + 4.5, most=most, class_="halo"))
        area = {"x": x - 14, "y": high, "width": 28.0, "height": low - high}
        parts.append(tag("rect", class_="brush", data_axis=index, data_upright=1, **area))
        row = 13.0 if self.crowded and index % 2 == 0 else 28.0  # long names of neighbours pass each other
        most = max(int((2 if self.crowded else 1) * (self.step - 6) / BOLD), 6)
        return [*parts, text(self.axes[index].label, x, row, "middle", "label halo", most=most)]


class _Lying:
    """The same when the axes lie one below the other."""

    def __init__(self, axes: Sequence[Axis], gaps: Sequence[bool]) -> None:
        self.axes, self.gaps, self.size = axes, gaps, (SMALL[0], 40.0 + 88 * len(axes))
        self.left, self.right, self.top = 26.0, SMALL[0] - 26, 48.0
        self.step = (self.size[1] - 82) / max(len(axes) - 1, 1)

    def corner(self, index: int, place: float | None) -> tuple[float, float]:
        """Where a line crosses an axis; place None: where its value is not set."""
        low = self.left + (64 if self.gaps[index] else 0)
        return self.left if place is None else low + place * (self.right - low), self.top + index * self.step

    def axis(self, index: int) -> list[Markup]:
        """An axis with its name and ticks, and an area that a pointer can brush. Where ticks stand too closely, some
        have no words."""
        (low, y), (high, _) = self.corner(index, 0.0), self.corner(index, 1.0)
        parts = [tag("path", class_="axis", d=path([(low, y), (high, y)]))]
        ticks = self.axes[index].ticks(4)
        most = max(int((high - low) / CHARACTER / max(len(ticks), 1)), 4)
        free = low - self.left
        for place, words in ticks:
            x, _ = self.corner(index, place)
            parts.append(tag("path", class_="axis", d=f"M{x:.1f} {y - 4:.1f}v8"))
            half = width(cut(words, most)) / 2
            if x - half > free:
                parts.append(text(words, x, y + 19, "middle", "halo", most))
                free = x + half + 4
        if self.gaps[index]:
            parts.append(text("not set", self.left, y + 19, "middle", "halo"))
        area = {"x": low, "y": y - 14, "width": high - low, "height": 28.0}
        parts.append(tag("rect", class_="brush", data_axis=index, data_upright=0, **area))
        return [*parts, text(self.axes[index].label, self.left, y - 9, class_="label halo", most=50)]
