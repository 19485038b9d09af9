"""Document -> section: pydantic validates, and each of its errors becomes a Diagnostic on the text."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from dltrain.config.diagnostics import ConfigError, Diagnostic, suggest
from dltrain.config.overrides import shown
from dltrain.config.section import Choice, Section
from dltrain.config.source import Document, Key, Path_

S = TypeVar("S", bound=Section)


def validate(cls: type[S], document: Document, subject: str) -> S:
    """The section that `document` describes. Raises ConfigError with every mistake in it."""
    if not isinstance(document.tree, Mapping):
        message = f"an experiment is a mapping of keys to values, not {shown(document.tree)}"
        raise ConfigError([Diagnostic(message, document.span(()))], subject)
    try:
        return cls.model_validate(document.tree)
    except ValidationError as error:
        found: dict[tuple[Any, ...], Diagnostic] = {}
        for detail in error.errors(include_url=False):
            diagnostic = _diagnose(cls, document, detail)
            found.setdefault((diagnostic.message, diagnostic.where), diagnostic)
        raise ConfigError(found.values(), subject) from None


class Place:
    """Where a pydantic location leads: the section that holds it, the field, and its type."""

    def __init__(self, cls: type[Section], tree: Any, location: Iterable[Key]) -> None:
        self.owner = cls
        self.owner_path: Path_ = ()
        self.path: Path_ = ()
        annotation: Any = cls
        for key in location:
            section = _section_of(annotation, tree)
            if section is not None:
                self.owner, self.owner_path = section, self.path
                field = section.model_fields.get(str(key))
                if field is None:
                    if isinstance(tree, Mapping) and key in tree:
                        self.path = (*self.path, key)
                    break
                annotation = _annotated(field)
            else:
                inner = _item_of(annotation, tree, key)
                if inner is None:
                    break
                annotation = inner
            self.path = (*self.path, key)
            tree = _get(tree, key)
        self.annotation = annotation

    @property
    def label(self) -> str:
        """The dotted key."""
        return ".".join(map(str, self.path))

    def kinds(self) -> list[type[Choice]]:
        """The kinds of choice that may stand here."""
        return [m for m in members(self.annotation) if isinstance(m, type) and issubclass(m, Choice)]


def _get(tree: Any, key: Key) -> Any:
    if isinstance(tree, Mapping):
        return tree.get(key)
    if isinstance(tree, list) and isinstance(key, int) and key < len(tree):
        return tree[key]
    return None


def members(annotation: Any) -> list[Any]:
    """The alternatives of a type, with Annotated and Union taken apart."""
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [m for arg in get_args(annotation) for m in members(arg)]
    return [annotation]


def _section_of(annotation: Any, tree: Any) -> type[Section] | None:
    for member in members(annotation):
        if isinstance(member, type) and issubclass(member, Section):
            if issubclass(member, Choice) and member.__dict__.get("family") is member:
                name: Any = tree.get("name") if isinstance(tree, Mapping) else tree
                return member.lookup(name) if isinstance(name, str) else None  # type: ignore[union-attr]
            return member
    return None


def _item_of(annotation: Any, tree: Any, key: Key) -> Any:
    for member in members(annotation):
        arguments = get_args(member)
        if get_origin(member) is list and isinstance(tree, list) and isinstance(key, int):
            return arguments[0]
        if get_origin(member) is dict and isinstance(tree, Mapping) and key in tree:
            return arguments[1]
    return None


def _diagnose(cls: type[Section], document: Document, error: ErrorDetails) -> Diagnostic:
    place = Place(cls, document.tree, error["loc"])
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return _unknown_key(place, document)
        case "missing":
            return _missing(place, str(error["loc"][-1]), document)
        case "choice_unknown":
            where = document.span((*place.path, "name")) if (*place.path, "name") in document.marks else None
            return unknown_choice(context, where or document.span(place.path))
        case "choice_name":
            note = f"`dltrain list {place.kinds()[0].kind}` shows the names"
            return Diagnostic(error["msg"], document.span(place.path, key=True), notes=(note,))
        case "field_rejected":
            path = (*place.path, context["field"])
            return Diagnostic(context["text"], document.span(path))
        case "value_error" | "assertion_error":
            return Diagnostic(error["msg"].removeprefix("Value error, "), document.span(place.path))
    sections = [m for m in members(place.annotation) if isinstance(m, type) and issubclass(m, Section)]
    if error["input"] is None and sections:
        message = f"section `{place.label}` is empty"
        note = "give it keys, or delete the line to use the defaults"
        return Diagnostic(message, document.span(place.path, key=True), notes=(note,))
    value = _get_path(document.tree, place.path)  # not error["input"]: that may be one item of a union's list
    wanted = describe(place.annotation)
    where = document.span(place.path)
    hint = ""
    if isinstance(value, str):
        near = suggest(value, _literals(place.annotation))
        hint = f"did you mean `{near}`?" if near else ""
    return Diagnostic(f"`{place.label}` must be {wanted}, not {shown(value)}", where, hint)


def unknown_choice(context: Mapping[str, Any], where: Any) -> Diagnostic:
    """`unknown optimizer `sgdd``, with the nearest name or where to find the names."""
    name = context["name"]
    if not isinstance(name, str):
        return Diagnostic(f"the name of the {context['kind']} must be text, not {shown(name)}", where)
    near = f"did you mean `{context['near']}`?" if context["near"] else ""
    listing = f"`dltrain list {context['kinds']}` shows all"
    note = f"known: {context['known']}" if context["known"] else listing
    return Diagnostic(f"unknown {context['kind']} `{name}`", where, near, (note,))


def _unknown_key(place: Place, document: Document) -> Diagnostic:
    key = str(place.path[-1]) if place.path else ""
    options = sorted(name for name in place.owner.model_fields if name != "name")
    near = suggest(key, options)
    hint = f"did you mean `{near}`?" if near else ""
    where = document.span(place.path, key=True)
    if issubclass(place.owner, Choice):
        name = _get_path(document.tree, place.owner_path)
        name = name.get("name") if isinstance(name, Mapping) else name
        message = f"unknown option `{key}` for {place.owner.singular()} `{name}`"
        label = "options"
    else:
        parent = ".".join(map(str, place.owner_path))
        message = f"unknown key `{key}`" + (f" in `{parent}`" if parent else "")
        label = "keys"
    notes = (f"{label}: {', '.join(options)}",) if options else ("it takes no options",)
    return Diagnostic(message, where, hint, notes)


def _missing(place: Place, field: str, document: Document) -> Diagnostic:
    from dltrain.config.section import field_docs

    owner_path = place.owner_path
    label = ".".join(map(str, (*owner_path, field)))
    if issubclass(place.owner, Choice):
        tree = _get_path(document.tree, owner_path)
        name = tree.get("name") if isinstance(tree, Mapping) else tree
        message = f"{place.owner.singular()} `{name}` needs `{field}`"
    else:
        message = f"`{label}` is required"
    info = place.owner.model_fields.get(field)
    note = field_docs(place.owner).get(field, "")
    wanted = f"`{field}`: {describe_field(info)}" if info is not None else ""
    where = document.span(owner_path, key=True) if owner_path else None
    root = document.span(())
    if where is None and root is not None:
        where = type(root)(root.origin)
    return Diagnostic(message, where, notes=(" - ".join(x for x in (wanted, note) if x),))


def _annotated(field: FieldInfo) -> Any:
    parts = (field.annotation, *field.metadata)
    return Annotated[parts] if field.metadata else field.annotation


def _get_path(tree: Any, path: Path_) -> Any:
    for key in path:
        tree = _get(tree, key)
    return tree


def _literals(annotation: Any) -> list[str]:
    return [v for m in members(annotation) if get_origin(m) is Literal for v in get_args(m) if isinstance(v, str)]


def describe_field(field: FieldInfo) -> str:
    """The type of a field in words."""
    return describe(_annotated(field))


def describe(annotation: Any, constraints: Iterable[Any] = ()) -> str:
    """A type in words: `a number > 0`, `an integer >= 1 or null`, `one of `cosine`, `linear``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return describe(arguments[0], [*arguments[1:], *constraints])
    if origin in (Union, types.UnionType):
        return _alternatives(arguments, constraints)
    if origin is Literal:
        names = [f"`{str(a).lower() if isinstance(a, bool) else a}`" for a in arguments]
        return names[0] if len(names) == 1 else "one of " + ", ".join(names)
    if origin is list:
        return "a list, each item " + describe(arguments[0])
    if origin is dict:
        return "a mapping"
    words = {float: "a number", int: "an integer", bool: "true or false", str: "text", type(None): "null"}
    if annotation in words:
        return f"{words[annotation]} {_bounds(constraints)}".strip()
    if isinstance(annotation, type) and issubclass(annotation, Choice):
        article = "an" if annotation.singular()[0] in "aeiou" else "a"
        return f"{article} {annotation.singular()} (a name, or a mapping with `name`)"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "a mapping with " + ", ".join(f"`{f}`" for f in annotation.model_fields)
    return "a value"


def _alternatives(arguments: tuple[Any, ...], constraints: Iterable[Any]) -> str:
    literals = [a for a in arguments if get_origin(a) is Literal]
    parts = [describe(a, constraints) for a in arguments if a is not type(None) and a not in literals]
    parts += [f"`{v}`" for a in literals for v in get_args(a)]
    parts += ["null"] if type(None) in arguments else []
    return ", ".join(parts[:-1]) + " or " + parts[-1] if len(parts) > 1 else parts[0]


def _bounds(constraints: Iterable[Any]) -> str:
    flat: list[Any] = []
    for constraint in constraints:
        flat += constraint.metadata if isinstance(constraint, FieldInfo) else [constraint]
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    found = [f"{sign} {getattr(c, name):g}" for name, sign in signs.items() for c in flat if hasattr(c, name)]
    return " and ".join(found)
