"""What a section of the page is made of: plain values, each with the name of how the template shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from markupsafe import Markup


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    kind: ClassVar[str] = "words"
    text: str


@dataclass(frozen=True)
class Code:
    """Text as it stands: commands, a plan, an experiment."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Drawn:
    """A figure; narrow: the same for a telephone, where it must be another."""

    kind: ClassVar[str] = "drawn"
    wide: Markup
    narrow: Markup | None = None
    caption: str = ""


@dataclass(frozen=True)
class Several:
    """Figures that may stand side by side."""

    kind: ClassVar[str] = "several"
    figures: Sequence[Drawn]


@dataclass(frozen=True)
class Cell:
    """Of a table: what is told, and the number by which it is sorted, if it is one."""

    text: str
    number: float | None = None

    @classmethod
    def of(cls, value: float, form: str = ".4f") -> Cell:
        """A number as it is told; `-` where it is not a number."""
        return cls("-") if value != value else cls(f"{value:{form}}", value)


@dataclass(frozen=True)
class Grid:
    """A table that can be sorted. numbers: the columns that hold numbers, by place."""

    kind: ClassVar[str] = "grid"
    label: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numbers: frozenset[int] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Card:
    """An example that is shown by pictures, below each other. pictures: `data:` URIs. tiny: its pixels are to be seen.
    row: its row in the table of examples."""

    row: int
    pictures: Sequence[str]
    tiny: bool
    text: str
    name: str


@dataclass(frozen=True)
class Cards:
    """Examples side by side."""

    kind: ClassVar[str] = "cards"
    label: str
    cards: Sequence[Card]


Shown = Cards | Grid
"""Examples: pictures, or rows of a table."""


@dataclass(frozen=True)
class Opening:
    """Examples behind a line that opens them. anchor: its id on the page."""

    anchor: str
    title: str
    shown: Shown


@dataclass(frozen=True)
class Openings:
    """Several of them."""

    kind: ClassVar[str] = "openings"
    title: str
    parts: Sequence[Opening]


Block = Words | Code | Drawn | Several | Grid | Cards | Openings


@dataclass(frozen=True)
class Section:
    """A part of the page. anchor: its id. blocks: what it shows; without any, it is left out."""

    anchor: str
    title: str
    blocks: Sequence[Block]
