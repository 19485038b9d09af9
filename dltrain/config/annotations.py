"""A field's type, taken apart: in words for messages and `dltrain list`, and as JSON Schema for editors."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from dltrain.config.section import Choice, Section

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_JSON_TYPES = {float: "number", int: "integer", bool: "boolean", str: "string", type(None): "null"}
_WORDS = {float: "a number", int: "an integer", bool: "true or false", str: "text", type(None): "null"}


@dataclass(frozen=True)
class OneOf:
    """Makes `Annotated[str, OneOf(names)]` the type of one of these names: a Literal whose names other modules add."""

    names: Callable[[], Sequence[str]]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def _known(self, name: str) -> str:
        if name not in self.names():
            raise PydanticCustomError("unknown_name", "unknown name")
        return name


def annotation_of(field: FieldInfo) -> Any:
    """The field's type with its constraints, a OneOf as the Literal that it is by now."""
    parts = (field.annotation, *field.metadata)
    return _with_literals(Annotated[parts] if field.metadata else field.annotation)


def _with_literals(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        return Union[tuple(map(_with_literals, get_args(annotation)))]  # noqa: UP007
    if get_origin(annotation) is list:
        return list[_with_literals(get_args(annotation)[0])]  # type: ignore[misc]
    if get_origin(annotation) is Annotated:
        for constraint in get_args(annotation)[1:]:
            if isinstance(constraint, OneOf):
                return Literal[tuple(constraint.names())]
    return annotation


def members(annotation: Any) -> list[Any]:
    """The alternatives of a type, with Annotated and Union taken apart."""
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [m for arg in get_args(annotation) for m in members(arg)]
    return [annotation]


def sections(annotation: Any) -> list[type[Section]]:
    """The sections and kinds among the alternatives of a type."""
    return [m for m in members(annotation) if is_section(m)]


def sections_within(annotation: Any) -> list[type[Section]]:
    """The sections and kinds anywhere in a type, such as the items of a list."""
    if is_section(annotation):
        return [annotation]
    return [section for argument in get_args(annotation) for section in sections_within(argument)]


def is_section(annotation: Any) -> bool:
    """Whether a type is a section or a kind; `list[int]` is a class to Python 3.10."""
    return get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, Section)


def is_kind(cls: type[Section]) -> bool:
    """Whether `cls` is a kind, such as Optimizer, and not one of its entries."""
    return issubclass(cls, Choice) and cls.__dict__.get("family") is cls


def literals(annotation: Any) -> list[Any]:
    """The values of the Literals among the alternatives of a type."""
    return [value for m in members(annotation) if get_origin(m) is Literal for value in get_args(m)]


def without_null(annotation: Any) -> Any:
    """The type without its alternative `null`."""
    parts = [part for part in get_args(annotation) if part is not type(None)]
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return Union[tuple(parts)] if is_union and parts else annotation  # noqa: UP007


def describe(annotation: Any, constraints: Iterable[Any] = ()) -> str:
    """A type in words: `a number > 0`, `an integer >= 1 or null`, `one of `cosine`, `linear``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    limits = _limits(constraints)
    if origin is Annotated:
        return describe(arguments[0], [*arguments[1:], *constraints])
    if origin in (Union, types.UnionType):
        return _alternatives(arguments, constraints)
    if origin is Literal:
        names = [f"`{name}`" for name in arguments]
        return names[0] if len(names) == 1 else "one of " + ", ".join(names)
    if origin is list:
        least, most = limits.get("min_length"), limits.get("max_length")
        size = "" if least is None else f" of {least} items" if least == most else f" of at least {least}"
        return f"a list{size}" + (f", each item {describe(arguments[0])}" if arguments[0] is not Any else "")
    if origin is dict:
        return "a mapping" + (" with at least one key" if limits.get("min_length") else "")
    if annotation in _WORDS:
        bounds = " and ".join(f"{sign} {limits[name]:g}" for name, sign in _SIGNS.items() if name in limits)
        return f"{_WORDS[annotation]} {bounds}".strip()
    if is_section(annotation) and issubclass(annotation, Choice):
        article = "an" if annotation.singular()[0] in "aeiou" else "a"
        return f"{article} {annotation.singular()} (a name, or a mapping with `name`)"
    return "a mapping" if is_section(annotation) else "any value"


def _alternatives(arguments: tuple[Any, ...], constraints: Iterable[Any]) -> str:
    values = [value for a in arguments if get_origin(a) is Literal for value in get_args(a)]
    named = [f"`{value}`" for value in values]
    lists = [a for a in arguments if get_origin(a) is list and named and list(get_args(get_args(a)[0])) == values]
    others = [a for a in arguments if a is not type(None) and get_origin(a) is not Literal and a not in lists]
    parts = [*(describe(a, constraints) for a in others), *named, *(["a list of them"] if lists else [])]
    parts += ["null"] if type(None) in arguments else []
    return ", ".join(parts[:-1]) + " or " + parts[-1] if len(parts) > 1 else parts[0]


def _limits(constraints: Iterable[Any]) -> dict[str, Any]:
    """The bounds and lengths of a type, by pydantic's names for them."""
    flat: list[Any] = []
    for constraint in constraints:
        flat += constraint.metadata if isinstance(constraint, FieldInfo) else [constraint]
    names = (*_SIGNS, "min_length", "max_length")
    return {name: getattr(c, name) for name in names for c in flat if getattr(c, name, None) is not None}


def as_json_schema(annotation: Any, constraints: Iterable[Any] = ()) -> dict[str, Any]:
    """A type as JSON Schema; sections and kinds are references to `$defs`, by `reference`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    limits = _limits(constraints)
    if origin is Annotated:
        return as_json_schema(arguments[0], [*arguments[1:], *constraints])
    if origin in (Union, types.UnionType):
        return {"anyOf": [as_json_schema(a, constraints) for a in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is list:
        sizes = {"min_length": "minItems", "max_length": "maxItems"}
        named = {json: limits[name] for name, json in sizes.items() if name in limits}
        return {"type": "array", "items": as_json_schema(arguments[0]), **named}
    if origin is dict:
        least = {"minProperties": limits["min_length"]} if "min_length" in limits else {}
        return {"type": "object", "additionalProperties": as_json_schema(arguments[1]), **least}
    if annotation in _JSON_TYPES:
        bounds = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
        named = {json: limits[name] for name, json in bounds.items() if name in limits}
        return {"type": _JSON_TYPES[annotation], **named}
    if is_section(annotation):
        return {"$ref": f"#/$defs/{definition(annotation)}"}
    return {}


def definition(cls: type[Section]) -> str:
    """The name of a section or kind under `$defs`."""
    if is_kind(cls):
        return cls.kind  # type: ignore[attr-defined, no-any-return]
    return f"{cls.kind}.{cls.__name__}" if issubclass(cls, Choice) else cls.__name__
