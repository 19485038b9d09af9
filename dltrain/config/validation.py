"""Document -> section: pydantic validates, and each of its errors becomes a Diagnostic on the text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from dltrain.config.annotations import annotation_of, describe, is_kind, members, sections, without_null
from dltrain.config.diagnostics import Diagnostic, Span, suggest
from dltrain.config.document import Document, Key, KeyPath
from dltrain.config.hints import hint_for, shown
from dltrain.config.section import Choice, Section, field_docs

S = TypeVar("S", bound=Section)


def validate(cls: type[S], document: Document) -> tuple[S | None, list[Diagnostic], set[str]]:
    """The section that `document` describes, or None; every mistake in it; and the keys of the root that hold one."""
    if not isinstance(document.tree, Mapping):
        message = f"an experiment is a mapping of keys to values, not {shown(document.tree)}"
        return None, [Diagnostic(message, document.span(()))], set()
    try:
        return cls.model_validate(document.tree), [], set()
    except ValidationError as error:
        details = _of_mappings(cls, document, error.errors(include_url=False))
    found: dict[tuple[Any, ...], Diagnostic] = {}
    meant = {path for detail in details if (path := _meant(Place(cls, document.tree, detail["loc"]), detail))}
    for detail in details:
        if detail["type"] != "missing" or detail["loc"] not in meant:  # misspelt, and reported as such
            diagnostic = _diagnose(cls, document, detail)
            found.setdefault((diagnostic.message, diagnostic.where), diagnostic)
    return None, list(found.values()), {str(key) for detail in details for key in detail["loc"][:1]}


def _of_mappings(cls: type[Section], document: Document, details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Where a value may be a mapping or something else, and is a mapping: the mistakes in it, at their own places, and
    not that it is nothing else. pydantic puts the name of the section into the location of the former."""
    inside: set[KeyPath] = set()
    found: list[tuple[ErrorDetails, bool]] = []
    for detail in details:
        location, settled = detail["loc"], False
        for index, key in enumerate(location):
            before = location[:index]
            name = str(key).rpartition(", ")[2].rstrip("]")  # of function-after[check(), Name] where it checks itself
            named = name in {section.__name__ for section in sections(Place(cls, document.tree, before).annotation)}
            if index and named and isinstance(document.get(before), Mapping):
                inside.add(before)
                detail, settled = {**detail, "loc": (*before, *location[index + 1 :])}, True
                break
        found.append((detail, settled))
    return [detail for detail, settled in found if settled or not any(detail["loc"][: len(at)] == at for at in inside)]


class Place:
    """Where a pydantic location leads: the section that holds it, the field, and its type."""

    def __init__(self, cls: type[Section], tree: Any, location: Iterable[Key]) -> None:
        self.owner = cls
        self.owner_path: KeyPath = ()
        self.path: KeyPath = ()
        self.field: FieldInfo | None = None
        annotation: Any = cls
        for key in location:
            section = _section_of(annotation, tree, self.field)
            if section is not None:
                self.owner, self.owner_path = section, self.path
                self.field = section.model_fields.get(str(key))
                if self.field is None:
                    if isinstance(tree, Mapping) and key in tree:
                        self.path = (*self.path, key)
                    break
                annotation = annotation_of(self.field)
            else:
                inner = _item_of(annotation, tree, key)
                if inner is None:
                    break
                annotation = inner
            self.path = (*self.path, key)
            tree = Document(tree).get((key,))
        self.annotation = annotation

    @property
    def label(self) -> str:
        """The dotted key."""
        return ".".join(map(str, self.path))

    def kinds(self) -> list[type[Choice]]:
        """The kinds of choice that may stand here."""
        return [m for m in sections(self.annotation) if issubclass(m, Choice)]

    def keys(self) -> list[str]:
        """The keys that the owner takes."""
        is_choice = issubclass(self.owner, Choice)
        own = [name for name in self.owner.model_fields if not (is_choice and name == "name")]
        return sorted([*own, "extends"] if not self.owner_path and not is_choice else own)


def _section_of(annotation: Any, tree: Any, field: FieldInfo | None) -> type[Section] | None:
    """The section that a value of this type is; of a choice without a name, that of the field's default."""
    for member in sections(annotation):
        if not issubclass(member, Choice) or not is_kind(member):
            return member
        name: Any = tree.get("name") if isinstance(tree, Mapping) else tree
        if name is None and field is not None and isinstance(field.default, member):
            return type(field.default)
        return member.lookup(name) if isinstance(name, str) else None
    return None


def _item_of(annotation: Any, tree: Any, key: Key) -> Any:
    for member in members(annotation):
        arguments = get_args(member)
        if get_origin(member) is list and isinstance(tree, list) and isinstance(key, int):
            return arguments[0]
        if get_origin(member) is dict and isinstance(tree, Mapping) and key in tree:
            return arguments[1]
    return None


def _meant(place: Place, error: ErrorDetails) -> KeyPath | None:
    """The path that an unknown key was probably meant to be."""
    if error["type"] != "extra_forbidden" or not place.path:
        return None
    near = suggest(str(place.path[-1]), place.keys())
    return (*place.owner_path, near) if near else None


def _diagnose(cls: type[Section], document: Document, error: ErrorDetails) -> Diagnostic:
    place = Place(cls, document.tree, error["loc"])
    value = document.get(place.path)  # not error["input"]: that may be one item of a union's list
    where = document.span(place.path)
    match error["type"]:
        case "extra_forbidden":
            return _unknown_key(cls, place, document)
        case "missing":
            return _missing(place, str(error["loc"][-1]), document)
        case "choice_unknown":
            name_path = (*place.path, "name")
            return unknown_choice(place.kinds()[0], error["ctx"]["name"],
                                  document.span(name_path) if name_path in document.marks else where)  # fmt: skip
        case "choice_name":
            return _nameless(place, value, document)
        case "field_rejected":
            inner = (*place.path, error["ctx"]["field"])  # of a section's validator; else of the field's own
            return Diagnostic(error["ctx"]["text"], document.span(inner) if isinstance(value, dict) else where)
        case "value_error" | "assertion_error":
            return Diagnostic(error["msg"].removeprefix("Value error, "), where)
    if value is None and sections(place.annotation):
        return _empty(place, document)
    wanted = without_null(place.annotation)
    found = shown(value)
    if error["type"] in ("too_short", "too_long") and value:
        found = f"a {'list' if isinstance(value, list) else 'mapping'} of {len(value)}"
    keys = ", ".join(key for section in sections(wanted) if not is_kind(section) for key in section.model_fields)
    notes = (f"keys: {keys}",) if keys else ()
    message = f"`{place.label}` must be {describe(wanted)}, not {found}"
    return Diagnostic(message, where, hint_for(wanted, value, _as_written(where, value)), notes)


def _as_written(where: Span | None, value: Any) -> str:
    """The text of a value in its file, or nothing when it is of several lines, or it is not there."""
    if where is None or isinstance(value, (dict, list)):
        return ""
    return where.source[where.column - 1 : where.column - 1 + where.length].strip()


def unknown_choice(kind: type[Choice], name: Any, where: Any) -> Diagnostic:
    """`unknown optimizer `sgdd``, with the nearest name or where to find the names."""
    if not isinstance(name, str):
        return Diagnostic(f"the name of the {kind.singular()} must be text, not {shown(name)}", where)
    known = kind.all_names()
    near = suggest(name, known)
    listing = f"known: {', '.join(known)}" if len(known) <= 12 else f"`dltrain list {kind.kind}` shows all"
    reasons = [entry.left_out()[name] for entry in kind.family.catalogue if name in entry.left_out()]
    if reasons:
        return Diagnostic(f"{kind.singular()} `{name}` is left out: {reasons[0]}", where, "", (listing,))
    absent = kind.not_offered.get(name.lower(), "")
    return Diagnostic(
        f"unknown {kind.singular()} `{name}`", where, "" if absent else _did_you_mean(near), (absent, listing)
    )


def _did_you_mean(near: str | None) -> str:
    return f"did you mean `{near}`?" if near else ""


def _nameless(place: Place, value: Mapping[str, Any], document: Document) -> Diagnostic:
    """A mapping without `name`: often the name is a key, or has another key."""
    kind = place.kinds()[0]
    hint, where = "", document.span(place.path, key=True)
    for key, inner in value.items():
        if kind.lookup(key):
            hint = f"write `{{name: {key}, ...}}`" if inner else f"write `{key}`"
        elif isinstance(inner, str) and (near := suggest(inner, kind.all_names())):
            hint, where = _did_you_mean(f"name: {near}"), document.span((*place.path, key), key=True)
    return Diagnostic(f"this {kind.singular()} has no `name`", where, hint, (f"`dltrain list {kind.kind}` shows all",))


def _empty(place: Place, document: Document) -> Diagnostic:
    where = document.span(place.path, key=True)
    if isinstance(place.path[-1], int):
        label = ".".join(map(str, place.path[:-1]))
        return Diagnostic(f"item {place.path[-1] + 1} of `{label}` is empty", where, notes=("give it, or delete it",))
    required = place.field is not None and place.field.is_required()
    note = f"it must be {describe(place.annotation)}" if required else "delete the line to use the default"
    return Diagnostic(f"`{place.label}` is empty", where, notes=(note,))


def _unknown_key(cls: type[Section], place: Place, document: Document) -> Diagnostic:
    key, options = str(place.path[-1]), place.keys()
    hint = _did_you_mean(_elsewhere(cls, document.tree, key) or suggest(key, options))
    if place.owner_path and key in cls.model_fields and key != "name":
        hint = f"`{key}` stands at the top level"
    if issubclass(place.owner, Choice):
        owner = document.get(place.owner_path)
        name = owner.get("name") if isinstance(owner, Mapping) else owner
        message = f"unknown option `{key}` for {place.owner.singular()} `{name}`"
    else:
        parent = ".".join(map(str, place.owner_path))
        message = f"unknown key `{key}`" + (f" in `{parent}`" if parent else "")
    label = "options" if issubclass(place.owner, Choice) else "keys"
    notes = (f"{label}: {', '.join(options)}" if options else "it takes no options",)
    return Diagnostic(message, document.span(place.path, key=True), hint, notes)


def _elsewhere(cls: type[Section], tree: Any, key: str) -> str | None:
    """The dotted key called `key` in a section of the root, when just one section that is always there has it, or else
    just one of the others."""
    found: dict[bool, list[str]] = {True: [], False: []}
    for name, field in cls.model_fields.items():
        if tree.get(name) is None and field.default is None:
            continue
        section = _section_of(field.annotation, tree.get(name), field)
        if section is not None and key in section.model_fields and key != "name":
            found[field.default is not None].append(f"{name}.{key}")
    likely = found[True] or found[False]
    return likely[0] if len(likely) == 1 else None


def _missing(place: Place, key: str, document: Document) -> Diagnostic:
    owner = document.get(place.owner_path)
    if issubclass(place.owner, Choice):
        name = owner.get("name") if isinstance(owner, Mapping) else owner
        message = f"{place.owner.singular()} `{name}` needs `{key}`"
    else:
        message = f"`{'.'.join(map(str, (*place.owner_path, key)))}` is required"
    field = place.owner.model_fields[key]
    note = f"`{key}`: {describe(annotation_of(field))} - {field_docs(place.owner).get(key, '')}"
    where = document.span(place.owner_path if place.owner_path else (key,), key=not isinstance(owner, str))
    return Diagnostic(message, where, notes=(note,))
