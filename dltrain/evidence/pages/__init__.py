"""Pages: templates and figures become one HTML file that needs no network, no server and no other file."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


def render(template: Path, **values: Any) -> str:
    """The page that a template makes of values; it extends `page.html`, and may use `macros.html`.

    Text among the values is escaped, `Markup` is not. The page's own policy lets no script run but the one that all
    pages have, and nothing be loaded from anywhere.
    """
    loader = ChoiceLoader([FileSystemLoader(template.parent), FileSystemLoader(TEMPLATES)])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = Markup((TEMPLATES / "page.js").read_text(encoding="utf-8"))
    style = Markup((TEMPLATES / "page.css").read_text(encoding="utf-8"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template.name).render(script=script, style=style, digest=digest, **values)


def standalone(figure: Markup) -> str:
    """A figure as an SVG file of its own, with the style of the pages."""
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8") + "\nsvg.figure { background: var(--back); }"
    opened = Markup('<svg xmlns="http://www.w3.org/2000/svg" ')
    inner = figure.removeprefix("<svg ")
    head, _, rest = inner.partition(">")
    return f"{opened}{head}><style><![CDATA[{style}]]></style>{rest}\n"
