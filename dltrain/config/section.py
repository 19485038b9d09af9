"""Sections and choices: the typed pieces an experiment is made of.

A `Section` is a frozen pydantic model: strict types, no unknown keys. A *kind* (Optimizer, Model,
Augmentation, ...) is a direct subclass of `Choice` that sets `kind`; subclassing it
adds an entry to its catalogue, found by the value of `name`. That is the whole registry.
"""

from __future__ import annotations

import ast
import fnmatch
import inspect
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


class Section(BaseModel):
    """A mapping of the YAML file. Subclasses document each field with the string under it."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False,
        protected_namespaces=(), validate_default=False,
    )  # fmt: skip
    rivals: ClassVar[tuple[tuple[tuple[str, ...], ...], ...]] = ()
    """Keys that exclude each other, as groups of which one alone can be set: setting one takes the other's place."""

    @classmethod
    def summary(cls) -> str:
        """The first paragraph of the class's docstring."""
        return " ".join((cls.__doc__ or "").split("\n\n")[0].split())


class Choice(Section):
    """An entry of a catalogue: a section with a `name`, and a `build` that makes the thing.

    `source` is the paper or document that the entry follows.
    """

    kind: ClassVar[str] = ""
    family: ClassVar[type[Choice]]
    catalogue: ClassVar[list[type[Choice]]]
    source: ClassVar[str] = ""
    not_offered: ClassVar[Mapping[str, str]] = {}
    """Of a kind: names that are looked for in vain, and what to say of them."""
    if TYPE_CHECKING:
        name: str

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            cls.family, cls.catalogue = cls, []
            return
        names = set(cls.names())
        if not names:  # a class between a kind and its entries
            return
        if missing := sorted(cls.__abstractmethods__):
            raise TypeError(f"{cls.kind}: {cls.__qualname__} has no `{missing[0]}`")
        for other in cls.catalogue:
            if taken := names & set(other.names()):
                raise TypeError(f"{cls.kind}: {sorted(taken)[0]!r} is already the name of {other.__qualname__}")
        cls.catalogue.append(cls)

    @classmethod
    def names(cls) -> Iterable[str]:
        """The values of `name` that mean this class; by default those of its Literal annotation."""
        annotation: Any = cls.model_fields["name"].annotation if "name" in cls.model_fields else None
        return get_args(annotation) if get_origin(annotation) is Literal else ()

    @classmethod
    def left_out(cls) -> Mapping[str, str]:
        """Names of this class's library that are no choice, each with the reason."""
        return {}

    @classmethod
    def lookup(cls, name: str) -> type[Choice] | None:
        """The catalogue's class for `name`, or None."""
        return _index(cls.family, len(cls.family.catalogue)).get(name)

    @classmethod
    def all_names(cls) -> list[str]:
        """Every name of the kind, in the order of the catalogue."""
        return list(_index(cls.family, len(cls.family.catalogue)))

    @classmethod
    def matching(cls, pattern: str) -> list[str]:
        """The names that match a shell pattern such as `resnet*`."""
        return [name for name in cls.all_names() if fnmatch.fnmatchcase(name, pattern)]

    @classmethod
    def parse(cls, value: Any) -> Choice:
        """`value` (a name, a mapping with a `name`, or an entry itself) as an entry of this kind."""
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping):
            raise PydanticCustomError("choice_type", "")
        if "name" not in value:
            raise PydanticCustomError("choice_name", "no `name`")
        name = value["name"]
        entry = cls.lookup(name) if isinstance(name, str) else None
        if entry is None:
            raise PydanticCustomError("choice_unknown", "unknown name", {"name": name})
        return entry.model_validate(value)

    @classmethod
    def singular(cls) -> str:
        """The kind in the singular, for messages: `optimizer`."""
        if cls.kind.endswith("ies"):
            return cls.kind[:-3] + "y"
        return cls.kind.removesuffix("es" if cls.kind.endswith("sses") else "s")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if cls.__dict__.get("family") is cls:
            return core_schema.no_info_plain_validator_function(cls.parse)
        return handler(source)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        if cls.__dict__.get("family") is cls:  # the entries are added by `dltrain.config.schema`
            return {"$ref": f"#/$defs/{cls.kind}"}
        return handler(schema)


@cache
def _index(root: type[Choice], size: int) -> dict[str, type[Choice]]:
    return {name: entry for entry in root.catalogue for name in entry.names()}


def kinds() -> dict[str, type[Choice]]:
    """Every kind by its plural name, as far as the modules that define them are imported."""
    found: dict[str, type[Choice]] = {}
    pending = Choice.__subclasses__()
    while pending:
        cls = pending.pop()
        pending += cls.__subclasses__()
        if cls.__dict__.get("family") is cls:
            found[cls.kind] = cls
    return dict(sorted(found.items()))


def is_name_enough(entry: type[Section]) -> bool:
    """Whether the bare name is a whole choice: no other key is required."""
    return not any(f.is_required() for key, f in entry.model_fields.items() if key != "name")


@cache
def field_docs(cls: type[Section]) -> dict[str, str]:
    """The string under each field of a section and its parents. Reads source code, each file once."""
    docs: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        if not (isinstance(parent, type) and issubclass(parent, Section)) or parent in (Section, Choice):
            continue
        body = _bodies(_source(parent)).get(parent.__qualname__, [])
        for field, after in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                match after:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        docs[field.target.id] = " ".join(text.split())
    return docs


def _source(cls: type[Section]) -> str:
    """The text of the module that defines a class; nothing for classes made in a REPL, which have none."""
    try:
        return inspect.getsource(sys.modules[cls.__module__])
    except (KeyError, OSError, TypeError):
        return ""


@cache
def _bodies(source: str) -> dict[str, list[ast.stmt]]:
    """What stands in each class of a module, by the class's qualified name."""
    found: dict[str, list[ast.stmt]] = {}
    pending: list[tuple[str, ast.AST]] = [("", ast.parse(source))]
    while pending:
        prefix, node = pending.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                found.setdefault(prefix + child.name, child.body)
                pending.append((f"{prefix}{child.name}.", child))
            elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                pending.append((f"{prefix}{child.name}.<locals>.", child))
            else:
                pending.append((prefix, child))
    return found


def reject(field: str, message: str) -> PydanticCustomError:
    """The error for a validator to raise when `field` of its section does not fit the others."""
    return PydanticCustomError("field_rejected", "{text}", {"field": field, "text": message})
