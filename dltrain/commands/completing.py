"""What the shell offers when Tab is pressed: experiments, keys and their values, runs. Imports no torch.

`dltrain --install-completion` teaches the shell to ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHOWN = 200
"""Proposals, at most."""


def experiments(incomplete: str) -> list[str]:
    """YAML files, and folders that may hold some or are a sweep."""
    return [path for path in _paths(incomplete) if path.endswith(("/", ".yaml", ".yml"))]


def runs(incomplete: str) -> list[str]:
    """Folders, and files that a command takes in the place of a run."""
    return [path for path in _paths(incomplete) if path.endswith(("/", ".pt", ".onnx"))]


def overrides(incomplete: str) -> list[str]:
    """Keys of an experiment with `=` or `.` behind them, or values of the key that is there: `model=resnet18`."""
    key, equals, value = incomplete.partition("=")
    *above, last = key.split(".")
    fields = _fields(above)
    if equals:
        return [f"{key}={name}" for name in _values(fields.get(last, [])) if name.startswith(value)][:SHOWN]
    prefix = ".".join([*above, ""])
    found = []
    for name, types in sorted(fields.items()):
        if name.startswith(last):
            found.append(f"{prefix}{name}=")
            if any(map(_entries, types)):
                found.append(f"{prefix}{name}.")
    return found[:SHOWN]


def _paths(incomplete: str) -> list[str]:
    folder, _, start = incomplete.rpartition("/")
    place = Path(f"{folder}/" if folder or incomplete.startswith("/") else ".")
    prefix = incomplete[: len(incomplete) - len(start)]
    try:
        found = sorted(place.iterdir())
    except OSError:
        return []
    names = [path.name + ("/" if path.is_dir() else "") for path in found if path.name.startswith(start)]
    return [prefix + name for name in names if start.startswith(".") or not name.startswith(".")][:SHOWN]


def _fields(above: list[str]) -> dict[str, list[Any]]:
    """The options below some keys, each with its types: those of all entries of a catalogue together."""
    from dltrain.config.annotations import annotation_of
    from dltrain.experiment.experiment import Experiment

    sections: list[Any] = [Experiment]
    for part in above:
        fields = [section.model_fields[part] for section in sections if part in section.model_fields]
        sections = [entry for field in fields for entry in _entries(annotation_of(field))]
    found: dict[str, list[Any]] = {}
    for section in sections:
        for name, field in section.model_fields.items():
            found.setdefault(name, []).append(annotation_of(field))
    return found


def _entries(annotation: Any) -> list[Any]:
    """The sections that a value of this type may be."""
    from dltrain.config.annotations import is_kind, sections

    return [entry for each in sections(annotation) for entry in (each.catalogue if is_kind(each) else [each])]  # type: ignore[attr-defined]


def _values(types: list[Any]) -> Iterator[str]:
    """The names that a value of one of these types may be."""
    from dltrain.config.annotations import is_kind, literals, members, sections

    told = dict.fromkeys(str(value) for each in types for value in literals(each))
    for annotation in types:
        kinds = [each for each in sections(annotation) if is_kind(each)]
        told |= dict.fromkeys(name for kind in kinds for name in kind.all_names())  # type: ignore[attr-defined]
        told |= dict.fromkeys(["true", "false"] if bool in members(annotation) else [])
        told |= dict.fromkeys(["null"] if type(None) in members(annotation) else [])
    yield from told
