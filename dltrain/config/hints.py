"""What was probably meant by a value of the wrong type: `yes`, `10%`, `"0.1"`, `128.0`."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, get_origin

from dltrain.config.annotations import is_section, literals, members
from dltrain.config.diagnostics import suggest
from dltrain.config.reader import scalar
from dltrain.config.section import Section

_TRUTH = {
    "yes": "true",
    "on": "true",
    "y": "true",
    "1": "true",
    "no": "false",
    "off": "false",
    "n": "false",
    "0": "false",
}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def shown(value: Any) -> str:
    """A value as a message names it: `"two"`, `true`, `null`, `a list`, `a mapping`."""
    if isinstance(value, (dict, list)):
        name = "mapping" if isinstance(value, dict) else "list"
        return f"a {name}" if value else f"an empty {name}"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = value if isinstance(value, str) else repr(value)
    text = text if len(text) <= 40 else text[:37] + "..."
    return f'"{text}"' if isinstance(value, str) else text


def hint_for(wanted: Any, value: Any, text: str = "") -> str:
    """What to write instead of `value` where the type `wanted` is asked for, or nothing. text: the value as it was
    written, when that is known: what is quoted must be that, `010` and not `10`."""
    text = text or (str(value).lower() if isinstance(value, bool) else str(value))
    types = members(wanted)
    if get_origin(types[0]) is list:
        if isinstance(value, dict):
            return "begin each item with `- `"
        return f"write `[{text}]`" if isinstance(value, (str, int, float)) else ""
    if is_section(types[0]):
        return _mapping(types[0], value)
    if bool in types and str(value).lower() in _TRUTH:
        return f"write `{_TRUTH[str(value).lower()]}`"
    names = [name for name in literals(wanted) if isinstance(name, str)]
    if isinstance(value, str) and (near := suggest(value, names)):
        return f"did you mean `{near}`?"
    if str in types and isinstance(value, (int, float)):
        return f'write `"{text}"`'
    if int in types and float not in types and isinstance(value, float) and value.is_integer():
        return f"write `{int(value)}`"
    is_number = int in types or float in types
    return _number(value, whole=float not in types) if isinstance(value, str) and is_number else ""


def _mapping(section: type[Section], value: Any) -> str:
    """What was meant by a value that stands for a mapping."""
    lists = [
        key for key, field in section.model_fields.items()
        if any(get_origin(member) is list for member in members(field.annotation))
    ]  # fmt: skip
    if isinstance(value, list) and len(lists) == 1:
        return f"write `{lists[0]}: [...]`"
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return "write its keys without `- `"
    found = re.fullmatch(r"(\w+)[:=](\S+)", value) if isinstance(value, str) else None
    return f"write `{found[1]}: {found[2]}`" if found else ""


def _number(text: str, *, whole: bool) -> str:
    """The number in a text that is nearly one. whole: it must be an integer."""
    if (found := re.fullmatch(r"[-+]?\d{1,3}((,\d{3})+)", text)) and (whole or found[1].count(",") > 1):
        return f"write `{text.replace(',', '')}`"
    if isinstance(scalar(text), (int, float)) and not isinstance(scalar(text), bool):
        return "remove the quotes"
    if found := re.fullmatch(rf"({_NUMBER})\s*%", text):
        return f"write `{Decimal(found[1]) / 100}`"
    if found := re.fullmatch(r"([-+]?\d+),(\d+)", text):
        return f"a decimal point is `.`: write `{found[1]}.{found[2]}`"
    if found := re.fullmatch(rf"({_NUMBER})\s*[A-Za-z]+", text):
        return f"write the number alone: `{found[1]}`"
    return ""
