"""Elements of SVG as text. Whatever is put into them is escaped."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

CHARACTER = 7.4
"""Width of an average character in the figures' text of 13 units, in units."""
LARGEST = 1.3
"""Pixels of a unit at most: larger text than the page's would shout."""


def tag(name: str, *inner: str, **attributes: object) -> Markup:
    """An element. inner: Markup as it is, text escaped. attributes: `class_` is `class`, `_` is `-`, None is none."""
    parts = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(coordinate(value) if isinstance(value, float) else value)}"'
        for key, value in attributes.items()
        if value is not None
    ]
    content = "".join(escape(each) for each in inner)
    return Markup(f"<{name}{''.join(parts)}>{content}</{name}>" if content else f"<{name}{''.join(parts)}/>")


def coordinate(value: float) -> str:
    """A length to a tenth of a unit, as short as can be."""
    rounded = f"{value:.1f}".removesuffix(".0")
    return "0" if rounded == "-0" else rounded


def path(points: Iterable[tuple[float, float]]) -> str:
    """A line through the points, as an attribute `d`: `M1 2L3 4`."""
    return "".join(f"{'L' if index else 'M'}{coordinate(x)} {coordinate(y)}" for index, (x, y) in enumerate(points))


def text(words: str, x: float, y: float, anchor: str = "start", class_: str | None = None, most: int = 60) -> Markup:
    """Words at a place; what is longer than `most` characters is cut, and whole in its tooltip."""
    shown = cut(words, most)
    whole = () if shown == words else (tag("title", words),)
    return tag("text", *whole, shown, x=x, y=y, text_anchor=None if anchor == "start" else anchor, class_=class_)


def cut(words: str, most: int) -> str:
    """`words` without its middle where it is longer than `most` characters."""
    if len(words) <= most:
        return words
    half = (most - 1) // 2
    return f"{words[: most - 1 - half]}…{words[len(words) - half :]}"


def width(words: str) -> float:
    """About how wide words are, in units."""
    return CHARACTER * len(words)


def picture(title: str, description: str, size: tuple[float, float], *inner: str) -> Markup:
    """A whole figure, which shrinks with the page and grows a little. size: width and height in units.

    title, description: what screen readers say of it.
    """
    wide, high = size
    about = (tag("title", title), tag("desc", description))
    box = f"0 0 {coordinate(wide)} {coordinate(high)}"
    most = f"max-width:{LARGEST * wide:.0f}px"
    return tag("svg", *about, *inner, viewBox=box, role="graphics-document", class_="figure", style=most, tabindex=0)
