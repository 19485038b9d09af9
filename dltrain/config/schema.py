"""JSON Schema of an experiment, from the same classes that validate it: completion and help in editors."""

from __future__ import annotations

from typing import Any

from dltrain.config.annotations import annotation_of, as_json_schema, definition, is_kind, sections_within
from dltrain.config.section import Choice, Section, field_docs, is_name_enough


def json_schema(root: type[Section]) -> dict[str, Any]:
    """The schema of a file that describes a `root`, with every section and kind under `$defs`."""
    definitions: dict[str, Any] = {}
    pending = _inner(root)
    while pending:
        cls = pending.pop()
        if definition(cls) not in definitions:
            definitions[definition(cls)] = _kind(cls) if issubclass(cls, Choice) and is_kind(cls) else _mapping(cls)
            pending += cls.catalogue if issubclass(cls, Choice) and is_kind(cls) else _inner(cls)
    for default in (field.default for field in root.model_fields.values()):
        if isinstance(default, Choice):  # a mapping without `name` changes options of the default
            definitions[definition(type(default))]["required"] = []
    schema = _mapping(root)
    alone, extending = {"required": schema.pop("required")}, {"required": ["extends"]}
    schema["properties"]["extends"] = {"type": "string", "description": "A YAML file under this one, relative to it."}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "anyOf": [alone, extending],
        "$defs": definitions,
    }


def _inner(cls: type[Section]) -> list[type[Section]]:
    """The sections and kinds in the fields of a section."""
    return [section for field in cls.model_fields.values() for section in sections_within(field.annotation)]


def _mapping(cls: type[Section]) -> dict[str, Any]:
    docs = field_docs(cls)
    properties = {
        key: {**as_json_schema(annotation_of(field)), **({"description": docs[key]} if key in docs else {})}
        for key, field in cls.model_fields.items()
    }
    required = [key for key, field in cls.model_fields.items() if field.is_required()]
    if issubclass(cls, Choice):
        properties["name"] = {"enum": list(cls.names())}
        required = ["name", *(key for key in required if key != "name")]
    return {
        "type": "object", "description": cls.summary(), "properties": properties, "required": required,
        "additionalProperties": False,
    }  # fmt: skip


def _kind(kind: type[Choice]) -> dict[str, Any]:
    """One of the entries: its bare name where that is enough, or its mapping."""
    entries = [f"#/$defs/{definition(entry)}" for entry in kind.catalogue]
    names = [f"#/$defs/{definition(entry)}/properties/name" for entry in kind.catalogue if is_name_enough(entry)]
    return {"description": kind.summary(), "anyOf": [{"$ref": reference} for reference in [*names, *entries]]}
