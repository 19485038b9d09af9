"""The frame of a chart: margins, grid, what stands on the axes, and the legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from dltrain.evidence.figures.axes import Axis, Names
from dltrain.evidence.figures.marks import Series, mark
from dltrain.evidence.figures.svg import cut, tag, text, width

LINE = 18.0
"""Height of a line of text, in units."""
LONGEST = 16
"""Characters of a name beside an axis; a longer one is cut, and whole in its tooltip."""


@dataclass(frozen=True)
class Frame:
    """The area of a chart in which values are drawn: its edges, in units, and the axes."""

    x_axis: Axis
    y_axis: Axis
    left: float
    top: float
    right: float
    bottom: float
    turned: bool = False

    @classmethod
    def around(
        cls, x_axis: Axis, y_axis: Axis, size: tuple[float, float], *, above: float = 0, below: float = 0
    ) -> Frame:
        """The frame that leaves room for what stands on the axes. above, below: further room, in units."""
        wide, high = size
        left = max((width(cut(words, LONGEST)) for _, words in y_axis.ticks(_count(high, 36))), default=0) + 14
        right = wide - 14
        names = [cut(words, LONGEST) for _, words in x_axis.ticks(9)] if isinstance(x_axis, Names) else []
        longest = max(map(width, names), default=0)
        turned = bool(names) and longest > (right - left) / len(names) - 6
        foot = (longest * 0.6 + 8 if turned else LINE) + (LINE + 8 if x_axis.label else 4)
        return cls(x_axis, y_axis, left, above + (LINE if y_axis.label else 8), right, high - foot - below, turned)

    def x(self, value: Any) -> float:
        """Where a value of the horizontal axis stands, in units."""
        return self.across(self.x_axis.place(value))

    def y(self, value: Any) -> float:
        """Where a value of the vertical axis stands, in units."""
        return self.height(self.y_axis.place(value))

    def height(self, place: float) -> float:
        """The same of a place, which is 0 at the lower end and 1 at the upper one."""
        return self.bottom - place * (self.bottom - self.top)

    def across(self, place: float) -> float:
        """The same of a place from 0 to 1."""
        return self.left + place * (self.right - self.left)

    def drawn(self, *, above: float = 0, below: float = 0, grid_x: bool = True) -> Markup:
        """Grid, ticks and labels. above, below: units between the area and what stands on the axes."""
        parts: list[Markup] = []
        for place, words in self.y_axis.ticks(_count(self.bottom - self.top, 36)):
            y = self.height(place)
            parts.append(tag("path", class_="grid", d=f"M{self.left:.0f} {y:.1f}H{self.right:.0f}"))
            parts.append(text(words, self.left - 8, y + 4.5, "end", most=LONGEST))
        foot = self.bottom + below
        for place, words in self.x_axis.ticks(_count(self.right - self.left, 80)):
            x = self.across(place)
            if grid_x:
                parts.append(tag("path", class_="grid", d=f"M{x:.1f} {self.top:.0f}V{foot:.0f}"))
            if self.turned:
                turn = f"rotate(-35 {x:.1f} {foot + 12:.1f})"
                turned = text(words, x, foot + 12, "end", most=LONGEST)
                parts.append(tag("g", turned, transform=turn))
            else:
                parts.append(text(words, x, foot + LINE, "middle", most=LONGEST))
        parts.append(tag("path", class_="axis", d=f"M{self.left:.0f} {foot:.0f}H{self.right:.0f}"))
        if self.y_axis.label:
            parts.append(text(self.y_axis.label, 2.0, self.top - 7 - above, class_="label"))
        return tag("g", *parts, class_="frame")

    def named(self, high: float) -> Markup:
        """The name of the horizontal axis, at the foot of a figure of that height."""
        middle = (self.left + self.right) / 2
        return text(self.x_axis.label, middle, high - 5, "middle", class_="label") if self.x_axis.label else Markup("")


def legend(series: Sequence[Series], wide: float) -> tuple[Markup, float]:
    """What each colour and shape means, in as many lines as it takes; and their height in units."""
    entries = {(s.name, s.colour, s.shape, s.line, s.dashed): s for s in series if s.name}
    if len(entries) < 2:
        return Markup(""), 0.0
    parts, x, y = list[Markup](), 2.0, 13.0
    for each in entries.values():
        words = cut(each.name, 40)
        room = 26 + width(words) + 14
        if x > 2 and x + room > wide:
            x, y = 2.0, y + LINE
        stroke = "line" + (" dashed" if each.dashed else "")
        sample = [tag("path", class_=stroke, d=f"M{x:.1f} {y - 4:.1f}h20")] if each.line != "none" else []
        if each.shape is not None:
            sample.append(mark(each.shape, x + 10, y - 4))
        parts.append(tag("g", tag("g", *sample, class_=each.colour), text(words, x + 26, y)))
        x += room
    return tag("g", *parts, class_="legend"), y + 9


def _count(length: float, every: float) -> int:
    return max(int(length / every), 2)
