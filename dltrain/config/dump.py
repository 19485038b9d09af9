"""Plain values -> YAML text that our reader reads back to the same values."""

from __future__ import annotations

from typing import Any

import yaml

from dltrain.config.reader import scalar


def to_yaml(values: dict[str, Any]) -> str:
    """YAML text of nested mappings, lists and scalars; a `name` comes first in its mapping."""
    return yaml.dump(_name_first(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _name_first(value: Any) -> Any:
    if isinstance(value, dict):
        first = {"name": value["name"]} if "name" in value else {}
        return {**first, **{key: _name_first(inner) for key, inner in value.items() if key != "name"}}
    return [_name_first(item) for item in value] if isinstance(value, list) else value


class _Dumper(yaml.SafeDumper):
    """Quotes text that our reader would take for a number; keeps lists of scalars on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = None if isinstance(scalar(value), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    short = not any(isinstance(item, (dict, list)) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=short)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)
