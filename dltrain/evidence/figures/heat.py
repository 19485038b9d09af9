"""A table of counts as coloured cells, such as a confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from dltrain.evidence.figures.marks import of_share
from dltrain.evidence.figures.svg import cut, picture, tag, text, width


def heat_map(
    title: str, description: str, rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[float]], *,
    row_label: str = "", column_label: str = "", form: str = ",.0f", note: Callable[[int, int], str] | None = None,
    of: Callable[[int, int], str] | None = None, opens: Callable[[int, int], str | None] | None = None,
) -> Markup:  # fmt: skip
    """Cells (rows, columns), the darker the larger; each has its number, its note, and whose it is (`of`).

    Colours are by the square root of the share of the row: a rare row is as readable as a frequent one, and a few
    errors beside many hits. note: what is said of the
    cell (row, column); by default both names and the number. opens: the id of what a cell opens on the page.
    """
    side = max(min(54.0, 760 / max(len(columns), 1)), 16.0)
    left = max((width(cut(name, 18)) for name in rows), default=0) + 12
    tallest = max((width(cut(name, 18)) for name in columns), default=0)
    turned = tallest > side - 6
    top = (24.0 if column_label else 4.0) + (tallest * 0.72 + 8 if turned else 22)
    head = 20.0 if row_label else 0.0
    size = (left + side * len(columns) + (tallest * 0.72 if turned else 8), top + side * len(rows) + head)
    parts = []
    if column_label:
        parts.append(text(column_label, left, 14.0, class_="label"))
    for index, name in enumerate(columns):
        x = left + side * (index + 0.5)
        turn = f"rotate(-45 {x:.1f} {top - 8:.1f})" if turned else None
        parts.append(tag("g", text(name, x, top - 8, "start" if turned else "middle", most=18), transform=turn))
    for row, (name, values) in enumerate(zip(rows, cells, strict=True)):
        y, total = top + side * row, sum(values)
        parts.append(text(name, left - 8, y + side / 2 + 4.5, "end", most=18))
        for column, value in enumerate(values):
            words = note(row, column) if note else f"{name}, {columns[column]}: {value:{form}}"
            colour = of_share(math.sqrt(value / total)) if value > 0 else "empty"
            cell = tag("rect", tag("title", words), class_="cell mark", x=left + side * column, y=y, width=side - 1,
                       height=side - 1, data_of=of(row, column) if of else None,
                       data_opens=opens(row, column) if opens else None)  # fmt: skip
            shown = f"{value:{form}}" if value and width(f"{value:{form}}") < side else ""
            number = text(shown, left + side * (column + 0.5), y + side / 2 + 4.5, "middle", "count") if shown else ""
            parts.append(tag("g", cell, number, class_=colour))
    if row_label:
        parts.append(text(row_label, 2.0, size[1] - 5, class_="label"))
    return picture(title, description, size, *parts)
