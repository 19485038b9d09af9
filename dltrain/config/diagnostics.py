"""What is wrong, where, and what would be right: compiler-style messages.

A `Diagnostic` is one mistake. A `ConfigError` holds all mistakes of one request; the command line
prints it and exits with status 2.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dltrain.console.streams import printable
from dltrain.errors import LONGEST, RequestError, shortened

MAX_SHOWN = 50
LOOKALIKES = "“”„‘’‚«»＂＇：，"
"""Characters that look like those of YAML, and are text to it."""


@dataclass(frozen=True)
class Span:
    """A place in a text: its file, 1-based line and column, and length.

    `line` is None where no line can be shown, and 0 where the text has no line number (an override).
    """

    origin: str
    line: int | None = None
    column: int = 1
    length: int = 1
    source: str = ""

    def __str__(self) -> str:
        return f"{self.origin}:{self.line}:{self.column}" if self.line else self.origin


@dataclass(frozen=True)
class Diagnostic:
    """One mistake: what is wrong, where, a hint beside the caret, and notes below.

    `key` is the option of its section that a mistake without a place is about, from which the place follows.
    """

    message: str
    where: Span | None = None
    hint: str = ""
    notes: Sequence[str] = ()
    severity: str = "error"
    key: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", shortened(self.message))
        object.__setattr__(self, "hint", shortened(self.hint))
        object.__setattr__(self, "notes", tuple(map(shortened, self.notes)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values: `message`, `file`, `line` and `column` (from 1; None where there is no such place), `hint`,
        `notes`."""
        where = self.where
        file, line = (where.origin, where.line or None) if where is not None else (None, None)
        column = where.column if where is not None and line else None
        place = {"file": file, "line": line, "column": column}
        return {"message": self.message, **place, "hint": self.hint, "notes": [note for note in self.notes if note]}

    def render(self) -> str:
        """The message, the source line with carets, and the notes, as plain text."""
        out = [f"{self.severity}: {self.message}"]
        hint = self.hint
        if self.where is not None:
            out.append(f"  --> {self.where}")
            if self.where.line is not None and self.where.source:
                out += _excerpt(self.where, hint)
                hint = ""
        is_syntax = self.message.startswith("not valid YAML")
        unseen = _unseen(self.where, whole=is_syntax) if self.where is not None and self.severity == "error" else []
        notes = ([hint] if hint else []) + unseen + [note for note in self.notes if note]
        gutter = " " * (len(str(self.where.line or "")) + 1 if self.where else 1)
        return "\n".join(map(printable, out + [f"{gutter} = {note}" for note in notes]))


def _unseen(where: Span, *, whole: bool) -> list[str]:
    """Notes on characters at a place, or in its whole line, that cannot be seen or look like others: no-break spaces,
    curved quotes."""
    start, end = (0, len(where.source)) if whole else (where.column - 1, where.column - 1 + where.length)
    found: dict[str, int] = {}
    for column, c in enumerate(where.source[start:end], start + 1):
        if c > "\x7f" and (unicodedata.category(c) in ("Cf", "Zs", "Zl", "Zp") or c in LOOKALIKES):
            found.setdefault(c, column)
    return [
        f"column {column} holds U+{ord(c):04X}, {unicodedata.name(c, 'unnamed').lower()}"
        + (", which is text to YAML" if c in LOOKALIKES else ", which cannot be seen")
        for c, column in list(found.items())[:4]
    ]


def _excerpt(where: Span, hint: str) -> list[str]:
    start, width = where.column - 1, 100
    source, offset = where.source, 0
    if len(source) > width + 20:  # keep the caret in view on very long lines
        offset = max(0, min(start - width // 2, len(source) - width))
        source = source[offset : offset + width]
    source = "".join(c if c.isprintable() else " " for c in source)
    start -= offset
    indent = " " * cells(source[:start])
    carets = "^" * max(1, min(cells(source[start : start + where.length]), width))
    number = str(where.line or "")
    pad = " " * len(number)
    return [f" {pad} |", f" {number} | {source}", f" {pad} | {indent}{carets} {hint}".rstrip()]


def cells(text: str) -> int:
    """How many terminal cells `text` takes: Chinese, Japanese and Korean characters take two."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


class ConfigError(RequestError):
    """One or more mistakes in what the user asked for. Nothing has been started."""

    def __init__(self, diagnostics: Iterable[Diagnostic], subject: str = "") -> None:
        self.diagnostics = sorted(diagnostics, key=_position)
        self.subject = subject
        super().__init__(self.diagnostics[0].message if self.diagnostics else "")

    def __str__(self) -> str:
        shown: set[str] = set()
        texts = []
        for diagnostic in self.diagnostics[:MAX_SHOWN]:  # a list of known names is given once
            texts.append(replace(diagnostic, notes=[n for n in diagnostic.notes if n not in shown]).render())
            shown |= set(diagnostic.notes)
        return "\n\n".join([*texts, *self.summary()])

    def report(self) -> str:
        return str(self)

    def summary(self) -> list[str]:
        """The closing line: how many mistakes, and that nothing was started. None for one mistake in no file."""
        count = len(self.diagnostics)
        if count == 1 and not self.subject:
            return []
        where = f" in {self.subject}" if self.subject else ""
        where += f", of which {MAX_SHOWN} are shown" if count > MAX_SHOWN else ""
        return [f"{count} error{'s' if count != 1 else ''}{where}; nothing was started"]


def _position(diagnostic: Diagnostic) -> tuple[str, int, int]:
    where = diagnostic.where
    return (where.origin, where.line or 0, where.column) if where else ("", 0, 0)


def suggest(word: str, known: Iterable[str]) -> str | None:
    """The nearest of `known` to a misspelt `word`, or None when nothing is near. Of equally near ones the first."""
    folded = {_fold(name): name for name in reversed(list(known))}
    plain, first_to_last = _fold(word), list(reversed(folded))
    if plain in folded:
        return folded[plain]
    longer = [key for key in first_to_last if len(plain) >= 3 and key.startswith(plain)]
    if not longer and len(plain) >= 5 and not any(map(str.isdigit, plain)):  # without the library's name
        longer = [key for key in first_to_last if key.partition("/")[2].startswith(plain)]
    if longer:
        return folded[min(longer, key=len)]
    if near := difflib.get_close_matches(plain, folded, n=20, cutoff=0.605):
        best = difflib.SequenceMatcher(None, near[0], plain).ratio()
        equal = {key for key in near if difflib.SequenceMatcher(None, key, plain).ratio() == best}
        return folded[next(key for key in first_to_last if key in equal)]
    shorter = [key for key in folded if len(key) >= 3 and plain.startswith(key)]
    return folded[max(shorter, key=len)] if shorter else None


def _fold(word: str) -> str:
    return str(word)[:LONGEST].lower().replace("-", "_")
