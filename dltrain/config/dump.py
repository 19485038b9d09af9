"""Plain values -> YAML text that our reader reads back to the same values."""

from __future__ import annotations

import contextlib
from typing import Any

import yaml

from dltrain.config.reader import scalar


def to_yaml(values: dict[str, Any]) -> str:
    """YAML text of nested mappings, lists and scalars; a `name` comes first in its mapping."""
    # libyaml escapes what could stand as it is, such as emojis, and takes no surrogates; what it writes without
    # escapes is what PyYAML writes, in a quarter of the time.
    if yaml.__with_libyaml__:
        with contextlib.suppress(UnicodeEncodeError):
            if "\\" not in (text := _written(values, _FastDumper)):
                return text
    return _written(values, _Dumper)


def _written(values: dict[str, Any], dumper: Any) -> str:
    text: str = yaml.dump(_name_first(values), Dumper=dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def _name_first(value: Any) -> Any:
    if isinstance(value, dict):
        first = {"name": value["name"]} if "name" in value else {}
        return {**first, **{key: _name_first(inner) for key, inner in value.items() if key != "name"}}
    return [_name_first(item) for item in value] if isinstance(value, list) else value


class _Plain:
    """Quotes text that our reader would take for a number; keeps lists of scalars on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _Dumper(_Plain, yaml.SafeDumper): ...


class _FastDumper(_Plain, getattr(yaml, "CSafeDumper", yaml.SafeDumper)): ...  # type: ignore[misc]


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = None if isinstance(scalar(value), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    short = not any(isinstance(item, (dict, list)) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=short)


for _dumper in (_Dumper, _FastDumper):
    _dumper.add_representer(str, _text)
    _dumper.add_representer(list, _list)
