"""Pages: one file each, which reach nothing outside and let nothing in."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest
from browsing import needs_browser, open_page
from jinja2 import UndefinedError

from dltrain.evidence.figures import Numbers, Point, Series, chart, heat_map, of_series, of_share
from dltrain.evidence.pages import TEMPLATES, render

TEMPLATE = (
    '{% extends "page.html" %}{% from "macros.html" import figure %}{% block title %}{{ name }}{% endblock %}'
    "{% block content %}<h1>{{ name }}</h1>{{ figure(drawn, name) }}{% endblock %}"
)


def made(folder: Path, **values: object) -> str:
    (folder / "my.html").write_text(TEMPLATE)
    return render(folder / "my.html", **values)


def a_chart() -> str:
    points = [Point(float(x), float(x % 3), f"point {x}", of=f"t{x}") for x in range(5)]
    return chart("Title", "About", Numbers("x", 0, 4), Numbers("y", 0, 2), [Series("s", points)])


def test_values_are_escaped_and_figures_are_not(tmp_path: Path) -> None:
    page = made(tmp_path, name="<script>evil()</script>", drawn=a_chart())
    assert "&lt;script&gt;evil()" in page
    assert page.count("<script>") == 1
    assert page.count("<svg") == 1


def test_the_policy_knows_the_script_of_the_page(tmp_path: Path) -> None:
    page = made(tmp_path, name="x", drawn="")
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page


def test_a_value_that_is_missing_is_no_empty_place(tmp_path: Path) -> None:
    with pytest.raises(UndefinedError, match="drawn"):
        made(tmp_path, name="x")


def test_every_colour_that_figures_name_is_in_the_style_sheet() -> None:
    style = (TEMPLATES / "page.css").read_text()
    for name in {*(of_series(i) for i in range(20)), *(of_share(i / 20) for i in range(21))}:
        assert f".{name} {{ --c: var(--{name}); }}" in style
        assert len(re.findall(rf"--{name}: #[0-9a-f]{{6}};", style)) == 2  # for light and for dark


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance of `#rrggbb`."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_words_have_enough_contrast_in_light_and_in_dark() -> None:
    style = (TEMPLATES / "page.css").read_text()
    for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL):
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))

        def contrast(a: str, b: str, colours: dict[str, str] = colours) -> float:
            dark, light = sorted((luminance(colours[a]), luminance(colours[b])))
            return (light + 0.05) / (dark + 0.05)

        for words in ("text", "soft", "focus"):
            assert contrast(words, "back") >= 4.5
            assert contrast(words, "panel") >= 4.5
        for index in range(3):
            assert contrast("text", f"r{index}") >= 4.5  # the numbers in a heat map's cells
        for index in range(3, 7):
            assert contrast("back", f"r{index}") >= 4.5
        ramp = [luminance(colours[f"r{index}"]) for index in range(7)]
        assert ramp in (sorted(ramp), sorted(ramp, reverse=True))  # it can be read without colours


@needs_browser
def test_the_browser_reports_what_a_broken_page_does() -> None:
    """The check below could see something."""
    broken = '<html><body><script>fetch("http://example.com/x").catch(() => 0); nothing()</script></body></html>'
    opened = open_page(broken)
    assert any("nothing is not defined" in line for line in opened.console)
    assert opened.requests == ["http://example.com/x"]


@needs_browser
def test_a_page_runs_its_own_script_and_no_other(tmp_path: Path) -> None:
    page = made(tmp_path, name="x", drawn=a_chart())
    quiet = open_page(page)
    assert (quiet.console, quiet.requests) == ([], [])
    evil = open_page(page.replace("</h1>", '</h1><script>nothing()</script><img src="http://example.com/x.png">'))
    assert evil.requests == []
    assert len([line for line in evil.console if "Content Security Policy" in line]) == 2


@needs_browser
def test_figures_are_walked_through_by_the_keyboard(tmp_path: Path) -> None:
    page = made(tmp_path, name="x", drawn=a_chart())
    walk = """(() => {
        const svg = document.querySelector("svg.figure"), tip = document.getElementById("tip"), seen = [];
        svg.focus();
        for (const key of ["ArrowRight", "ArrowRight", "End", "ArrowRight", "ArrowLeft", "Home"]) {
            const pressed = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
            document.activeElement.dispatchEvent(pressed);
            seen.push([document.activeElement.getAttribute("aria-label"), tip.hidden ? "" : tip.textContent,
                       document.querySelectorAll(".lit").length]);
        }
        document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
        return [seen, tip.hidden, document.querySelectorAll(".lit").length];
    })()"""
    seen, hidden, lit = open_page(page, walk).answer
    assert [each[0] for each in seen] == ["point 0", "point 1", "point 4", "point 0", "point 4", "point 0"]
    assert all(label == tip and count == 1 for label, tip, count in seen)
    assert (hidden, lit) == (True, 0)


@needs_browser
def test_a_figure_fits_pages_of_any_width(tmp_path: Path) -> None:
    cells = [[1] * 10] * 10
    page = made(tmp_path, name="x", drawn=heat_map("T", "D", list("abcdefghij"), list("abcdefghij"), cells))
    inside = "[document.documentElement.scrollWidth, document.querySelector('svg').getBoundingClientRect().width]"
    for width in (1400, 500):
        scrolled, drawn = open_page(page, inside, width).answer
        assert 300 < drawn <= scrolled <= width
