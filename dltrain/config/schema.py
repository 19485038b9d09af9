"""JSON Schema of an experiment, from the same classes that validate it: completion and help in editors.

A file that extends another says some keys of it: its sections are those under `$defs/partial`, which require nothing.
"""

from __future__ import annotations

import json
from typing import Any

from dltrain.config.annotations import annotation_of, as_json_schema, definition, is_kind, sections_within
from dltrain.config.section import Choice, Section, field_docs, is_name_enough

Schema = dict[str, Any]
DEFS = "#/$defs/"


def json_schema(root: type[Section]) -> Schema:
    """The schema of a file that describes a `root`, with every section and kind under `$defs`."""
    definitions: dict[str, Schema] = {}
    pending = _inner(root)
    while pending:
        cls = pending.pop()
        if definition(cls) not in definitions:
            definitions[definition(cls)] = _kind(cls) if issubclass(cls, Choice) and is_kind(cls) else _mapping(cls)
            pending += cls.catalogue if issubclass(cls, Choice) and is_kind(cls) else _inner(cls)
    whole = _mapping(root)
    name = definition(root)
    definitions[name] = whole
    partial = {key: _partial(key, schema, definitions) for key, schema in definitions.items()}
    extends = {"type": "string", "description": "A YAML file under this one, relative to it."}
    partial[name]["properties"]["extends"] = extends
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "description": root.summary(),
        "if": {"required": ["extends"]},
        "then": {"$ref": f"{DEFS}partial/{name}"},
        "else": {"$ref": f"{DEFS}{name}"},
        "$defs": {**definitions, "partial": partial},
    }


def _inner(cls: type[Section]) -> list[type[Section]]:
    """The sections and kinds in the fields of a section."""
    return [section for field in cls.model_fields.values() for section in sections_within(field.annotation)]


def _mapping(cls: type[Section]) -> Schema:
    docs = field_docs(cls)
    properties = {
        key: {**as_json_schema(annotation_of(field)), **({"description": docs[key]} if key in docs else {})}
        for key, field in cls.model_fields.items()
    }
    for key, default in ((key, field.default) for key, field in cls.model_fields.items()):
        if isinstance(default, Choice):  # a mapping without `name` changes options of the default
            properties[key] = _with_default(properties[key], type(default))
    required = [key for key, field in cls.model_fields.items() if field.is_required()]
    if issubclass(cls, Choice):
        properties["name"] = {"enum": list(cls.names())}
        required = ["name", *(key for key in required if key != "name")]
    return {
        "type": "object", "description": cls.summary(), "properties": properties, "required": required,
        "additionalProperties": False,
    }  # fmt: skip


def _kind(kind: type[Choice]) -> Schema:
    """One of the entries: its bare name where that is enough, or its mapping."""
    entries = [f"{DEFS}{definition(entry)}" for entry in kind.catalogue]
    names = [f"{DEFS}{definition(entry)}/properties/name" for entry in kind.catalogue if is_name_enough(entry)]
    return {"description": kind.summary(), "anyOf": [{"$ref": reference} for reference in [*names, *entries]]}


def _with_default(schema: Schema, default: type[Choice]) -> Schema:
    """What `schema` describes, or a mapping without `name` of the options of the kind's `default`."""
    options = [key for key in default.model_fields if key != "name"]
    properties = {key: {"$ref": f"{DEFS}{definition(default)}/properties/{key}"} for key in options}
    nameless = {"type": "object", "properties": properties, "additionalProperties": False}
    rest = {key: value for key, value in schema.items() if key != "description"}
    return {"description": schema.get("description", ""), "anyOf": [rest, nameless]}


# -- for files that extend another


def _partial(name: str, schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """The definition `name` for a mapping that is merged over one in another file."""
    if "properties" in schema:
        properties = {
            key: _property(f"{DEFS}{name}/properties/{key}", value) for key, value in schema["properties"].items()
        }
        return {"type": "object", "properties": properties, "additionalProperties": False}
    entries = [key for key in definitions if key.startswith(f"{name}.")]
    names = [{"$ref": f"{DEFS}{entry}/properties/name"} for entry in entries]
    return {
        "anyOf": [*names, *({"$ref": f"{DEFS}partial/{entry}"} for entry in entries), _nameless(entries, definitions)]
    }


def _nameless(entries: list[str], definitions: dict[str, Schema]) -> Schema:
    """Options of whichever entry the other file chose."""
    found: dict[str, dict[str, Schema]] = {}
    for entry in entries:
        for key, value in definitions[entry]["properties"].items():
            alike = json.dumps({part: inner for part, inner in value.items() if part != "description"})
            found.setdefault(key, {}).setdefault(alike, _property(f"{DEFS}{entry}/properties/{key}", value))
    found.pop("name", None)
    properties = {key: {"anyOf": list(kinds.values())} for key, kinds in found.items()}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _property(reference: str, schema: Schema) -> Schema:
    """A property, of which mappings are merged and lists are replaced whole."""
    changed = _merging(schema)
    return {"$ref": reference} if changed == schema else changed


def _merging(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_merging(part) for part in schema]
    if not isinstance(schema, dict) or schema.get("type") == "array":
        return schema
    changed = {key: _merging(value) for key, value in schema.items() if key != "minProperties"}
    reference = schema.get("$ref", "")
    return {**changed, "$ref": reference.replace(DEFS, f"{DEFS}partial/", 1)} if _is_definition(reference) else changed


def _is_definition(reference: str) -> bool:
    return reference.startswith(DEFS) and "/" not in reference.removeprefix(DEFS)
