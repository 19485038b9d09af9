"""Examples as they are shown: by thumbnails in the page itself, or by the values of their rows."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from PIL import Image

from dltrain.data.types import Source
from dltrain.evidence.examples import ExampleTable
from dltrain.evidence.figures import number
from dltrain.evidence.report.blocks import Card, Cards, Cell, Grid, Shown

SIDE = 112
"""Pixels of a thumbnail's longer side, at most."""
TINY = 40
"""Up to which the pixels of an image are to be seen, each by itself."""
ROOM = 3_200_000
"""Characters of all pictures of a page."""
COLUMNS = 16
"""Of a table's rows."""

Redone = Callable[[np.ndarray], Sequence[np.ndarray]]
"""Places in a split -> what a network makes of these examples: (h, w, C) uint8 each."""


class Faces:
    """The examples of a split.

    source: where they lie; None where that cannot be read any more. redone: what a network makes of them, where its
    outputs look like its inputs. Pictures are given until their room is used up; then examples have their names alone.
    """

    def __init__(self, table: ExampleTable, source: Source | None, redone: Redone | None = None) -> None:
        self.table, self.source, self.redone = table, source, redone
        self.room = ROOM
        self.facts: dict[str, Any] = {}
        pictures = source.pictures(np.arange(1), SIDE) if source is not None else None
        self.are_images = source is None or pictures is not None
        if source is not None and not self.are_images:
            self.facts = source.facts(np.arange(len(source)))
        self._made: dict[int, list[tuple[str, int]]] = {}

    def shown(self, label: str, rows: Iterable[int]) -> Shown:
        """The examples in `rows` of the table: cards with their pictures, or a table. label: what they are."""
        places = [int(row) for row in rows]
        if self.are_images:
            self._prepare(places)
            return Cards(label, [self._card(row) for row in places])
        names = [name for name in self.facts if name not in ("path", "row")][:COLUMNS]
        cells = [
            [self._name_cell(row), Cell(self.table.outcomes.sentence(row)), Cell.of(float(self.table.losses[row])),
             *(_cell(self.facts[name][row]) for name in names)]
            for row in places
        ]  # fmt: skip
        numbers = {2, *(3 + place for place, name in enumerate(names) if _is_number(self.facts[name][:1]))}
        return Grid(label, ["row", "right, answered", "loss", *names], cells, frozenset(numbers))

    def name(self, row: int) -> str:
        """What an example is called: its file, its row of a file, or its place in the split."""
        where = {name: values[row] for name, values in self.table.where.items()}
        if "row" in where:
            return f"row {where['row']}"
        return PurePath(str(where["path"])).name if "path" in where else f"#{self.table.index[row]}"

    def _name_cell(self, row: int) -> Cell:
        return Cell(self.name(row), float(self.table.index[row]))

    def _card(self, row: int) -> Card:
        pictures = self._made.get(row, [])
        cost = sum(len(uri) for uri, _ in pictures)
        if cost > self.room:
            pictures = []
        else:
            self.room -= cost
        tiny = all(side <= TINY for _, side in pictures)
        name = f"{self.name(row)}, loss {self.table.losses[row]:.3g}"
        return Card(row, [uri for uri, _ in pictures], tiny, self.table.outcomes.sentence(row), name)

    def _prepare(self, rows: Sequence[int]) -> None:
        """Read the pictures of examples together."""
        wanted = np.array([row for row in dict.fromkeys(rows) if row not in self._made], dtype=np.int64)
        if self.source is None or not len(wanted) or not self.room:
            return
        places = self.table.index[wanted]
        found = [self.source.pictures(places, SIDE) or []]
        if self.redone is not None:
            found.append(list(self.redone(places)))
        for row, *pixels in zip(wanted.tolist(), *found, strict=True):
            self._made[row] = [(uri(each), max(each.shape[:2])) for each in pixels]


def uri(pixels: np.ndarray) -> str:
    """(h, w, C) uint8 as an image in an address: PNG where it is tiny, else JPEG. Of two channels, or more than three,
    the mean is shown."""
    channels = pixels.shape[2]
    seen = pixels if channels in (1, 3) else pixels.mean(2, keepdims=True).round().astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(seen[:, :, 0] if seen.shape[2] == 1 else seen))
    if max(image.size) > SIDE:
        image.thumbnail((SIDE, SIDE))
    file, form = io.BytesIO(), "PNG" if max(image.size) <= TINY else "JPEG"
    image.save(file, form, **({"optimize": True} if form == "PNG" else {"quality": 82}))
    return f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _cell(value: Any) -> Cell:
    if isinstance(value, str):
        return Cell(value)
    return Cell("-") if value != value else Cell(number(float(value)), float(value))


def _is_number(values: np.ndarray) -> bool:
    return bool(values.dtype.kind in "fiu")
