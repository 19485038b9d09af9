"""JSON Schema of an experiment, from the same classes that validate it: completion and help in editors."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from dltrain.config.section import Choice, Section, field_docs, is_name_enough


def json_schema(root: type[Section]) -> dict[str, Any]:
    """The schema of `root`, with every catalogue under `$defs`."""
    kinds = [kind for kind in Choice.__subclasses__() if "kind" in kind.__dict__]
    entries = [entry for kind in kinds for entry in kind.catalogue]
    keys, schema = models_json_schema([(cls, "validation") for cls in [root, *entries]])
    definitions: dict[str, Any] = schema["$defs"]
    references = {cls: keys[(cls, "validation")] for cls in [root, *entries]}
    for cls in _sections([root, *entries]):
        name = references[cls]["$ref"].rpartition("/")[2] if cls in references else cls.__name__
        _document(cls, definitions[name])
    for kind in kinds:
        names = [name for entry in kind.catalogue if is_name_enough(entry) for name in entry.names()]
        options: list[dict[str, Any]] = [{"enum": names}] if names else []
        for entry in kind.catalogue:
            options.append(references[entry])
            fields = definitions[references[entry]["$ref"].rpartition("/")[2]]["properties"]
            fields["name"] = {"enum": list(entry.names())}
        definitions[kind.kind] = {"anyOf": options, "description": kind.summary()}
    top = definitions.pop(references[root]["$ref"].rpartition("/")[2])
    top["properties"]["extends"] = {"type": "string", "description": "A YAML file, relative to this one, under it."}
    top["required"] = [key for key in top.get("required", []) if key != "name"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **top, "$defs": definitions}


def _sections(roots: list[type[Section]]) -> list[type[Section]]:
    """The sections and those in their fields."""
    from dltrain.config.validation import members

    seen: dict[type[Section], None] = {}
    pending = list(roots)
    while pending:
        cls = pending.pop()
        if cls in seen or cls.__dict__.get("family") is cls:
            continue
        seen[cls] = None
        for field in cls.model_fields.values():
            pending += [m for m in members(field.annotation) if isinstance(m, type) and issubclass(m, Section)]
    return list(seen)


def _document(cls: type[Section], schema: dict[str, Any]) -> None:
    """Put the strings under the fields into the schema; a choice's bare name needs no `name` key twice."""
    docs = field_docs(cls)
    for key, property_ in schema.get("properties", {}).items():
        if key in docs:
            property_["description"] = docs[key]
        property_.pop("title", None)
    if issubclass(cls, Choice):
        schema["required"] = sorted({"name", *schema.get("required", [])})
