"""What setting a value means: one rule for the command line, `extends`, `override` in Python and the sweep.

- A mapping changes what is there, key by key; a list or any other value replaces it.
- Of two keys that exclude each other (`epochs` and `steps`), the one that is set takes the other's place.
- The name of the choice that is there changes nothing: its options stay, also those of the default choice. The name of
  another choice replaces the choice whole. `x.name` alone keeps the options that the new choice has too, as far as they
  were set and not merely the default's, and the notes say which were lost.
- A set of overrides has no order: whole choices come first, then their options. One that contradicts another is a
  mistake. So is a key given twice with different values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, get_args, get_origin

from dltrain.config.annotations import members, sections
from dltrain.config.diagnostics import ConfigError, Diagnostic, Span
from dltrain.config.document import Document, KeyPath, Marks, paths
from dltrain.config.merging import default_at, lay, written
from dltrain.config.reader import read_text, scalar
from dltrain.config.section import Section
from dltrain.config.validation import Place
from dltrain.errors import Note


@dataclass(frozen=True)
class Override:
    """A dotted key and the value to set there, whose marks quote the override. `whole`: it replaces what is there."""

    key: str
    value: Document
    whole: bool = False

    @classmethod
    def parse(cls, text: str) -> Override:
        """`optimizer.lr=0.2`, with its value in YAML. Raises ConfigError when it is no KEY=VALUE."""

        def fail(message: str) -> ConfigError:
            span = Span("command line", 0, 1, max(len(text), 1), text)
            return ConfigError([Diagnostic(message, span, notes=("an override is KEY=VALUE: optimizer.lr=0.2",))])

        if (clean := text.encode("utf-8", "replace").decode()) != text:  # bytes of the command line that are no text
            text = clean
            raise fail(f"override `{text}` is not UTF-8 text")
        key, equals, value = text.partition("=")
        if not equals:
            raise fail(f"override `{text}` has no `=`")
        if not all(key.split(".")) or key != "".join(key.split()):
            raise fail(f"`{key}` is not a key")
        span = Span("command line", 0, len(key) + 2, max(len(value), 1), text)
        if not any(c in value for c in "[]{}\"'"):
            return cls(key, Document(scalar(value.strip()), {(): Marks(None, span)}))
        try:
            written = read_text(value, "command line")
        except ConfigError as error:
            raise fail(error.diagnostics[0].message) from None
        marks = {path: Marks(_moved(m.key, span), _moved(m.value, span)) for path, m in written.marks.items() if path}
        problems = [replace(problem, where=_moved(problem.where, span), notes=()) for problem in written.problems]
        return cls(key, Document(written.tree, {(): Marks(None, span), **marks}, problems))

    @classmethod
    def of(cls, key: str, value: Any) -> Override:
        """The dotted `key` set to a Python value; a section made in Python is whole."""
        whole, value = isinstance(value, Section), written(value)
        span = Span("override", 0, len(key) + 2, max(len(str(value)), 1), f"{key}={value}")
        return cls(key, Document(value, {path: Marks(None, span) for path in paths(value)}), whole)

    def at(self, path: KeyPath) -> Document:
        """The value with its marks at `path`, and marks of the keys on the way there."""
        span = self.value.marks[()].value
        marks: dict[KeyPath, Marks] = {}
        column = 1
        for depth, key in enumerate(path, 1):
            rest = replace(span, column=column, length=max(len(span.source) - column + 1, 1))
            marks[path[:depth]] = Marks(replace(rest, length=len(str(key))), rest)
            column += len(str(key)) + 1
        below = {(*path, *inner): m for inner, m in self.value.marks.items()}
        return Document(self.value.tree, {**marks, **below, path: Marks(marks[path].key, span)})


def _moved(inner: Span | None, value: Span) -> Span:
    """A place within the value's text as a place within the whole override."""
    return replace(value, column=value.column + inner.column - 1, length=inner.length) if inner else value


def apply_all(root: type[Section], document: Document, overrides: Iterable[Override]) -> tuple[Document, list[Note]]:
    """`document` changed by a set of overrides, whatever their order, and notes on the options that this made void."""
    overrides, clashes = _without_contradictions(overrides)
    document = replace(document, problems=[*document.problems, *clashes])
    given = {dotted for override in overrides for dotted, _ in _settings(override)}
    notes: list[Note] = []
    for override in sorted(overrides, key=_order):
        try:
            path = resolve(root, document.tree, override.key)
            if len(path) > 1 and path[-1] == "name":
                document, path, override, lost = _renamed(root, document, path, override)
                notes += lost
            document = lay(root, document, path, override.at(path), whole=override.whole, given=given)
        except ConfigError as error:
            document = replace(document, problems=[*document.problems, *error.diagnostics])
        else:
            document = replace(document, problems=[*document.problems, *override.value.problems])
    return document, notes


def _order(override: Override) -> tuple[int, bool, str]:
    """Whole choices before their options: `x`, then `x.name`, then `x.option`."""
    parts = override.key.split(".")
    names = len(parts) > 1 and parts[-1] == "name"
    return len(parts) - names, names, override.key


def _settings(override: Override) -> Iterator[tuple[str, Any]]:
    """What an override sets, by dotted keys; a bare name also as the `name` of its choice."""
    for path in paths(override.value.tree):
        value, dotted = override.value.get(path), ".".join([override.key, *map(str, path)])
        if not isinstance(value, (dict, list)):
            yield dotted, value
            if isinstance(value, str):
                yield f"{dotted}.name", value


def _without_contradictions(overrides: Iterable[Override]) -> tuple[list[Override], list[Diagnostic]]:
    """The overrides that agree with those given before them, and the mistakes of the others."""
    kept: list[Override] = []
    problems = []
    values: dict[str, tuple[Any, Override]] = {}
    for override in overrides:
        mine = dict(_settings(override))
        clash = next(
            (_clash(dotted, value, values) for dotted, value in mine.items() if _clash(dotted, value, values)), None
        )
        same = next((other for other in kept if other.key == override.key), None)
        if clash is None and same is not None and not _equal(same.value.tree, override.value.tree):
            clash = override.key, same
        if clash is None:
            kept.append(override)
            values |= {dotted: (value, override) for dotted, value in mine.items() if dotted not in values}
            continue
        key, other = clash
        quoted, before = override.value.marks[()].value, other.value.marks[()].value.source
        where = replace(quoted, column=1, length=len(override.key))
        problems.append(Diagnostic(f"`{key}` is given twice, with different values", where, notes=(f"also: {before}",)))
    return kept, problems


def _clash(dotted: str, value: Any, values: dict[str, tuple[Any, Override]]) -> tuple[str, Override] | None:
    """The key that contradicts what was set before, and the override that set it."""
    if dotted in values and not _equal(values[dotted][0], value):
        return dotted, values[dotted][1]
    parts = dotted.split(".")
    for depth in range(1, len(parts)):  # an option of what is set to null, or the other way round
        above = ".".join(parts[:depth])
        if above in values and not isinstance(values[above][0], str):
            return above, values[above][1]
    if not isinstance(value, str):
        below = next((key for key in values if key.startswith(f"{dotted}.")), None)
        return (dotted, values[below][1]) if below is not None else None
    return None


def _equal(a: Any, b: Any) -> bool:
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def resolve(root: type[Section], tree: Any, key: str) -> KeyPath:
    """A dotted key as a path: places in lists are numbers, and keys of mappings such as a sweep's `space` have dots."""
    parts = key.split(".")
    path: KeyPath = ()
    while parts:
        place = Place(root, tree, path)
        types = members(place.annotation) if place.path == path else []
        count = 1
        part: str | int = parts[0]
        for member in types:
            if get_origin(member) is dict:
                inner = [field for section in sections(get_args(member)[1]) for field in section.model_fields]
                count = max(len(parts) - (parts[-1] in inner), 1)
                part = ".".join(parts[:count])
            elif get_origin(member) is list and parts[0].isascii() and parts[0].isdecimal():
                part = int(parts[0])
        path, parts = (*path, part), parts[count:]
    return path


def _renamed(
    root: type[Section], document: Document, path: KeyPath, override: Override
) -> tuple[Document, KeyPath, Override, list[Note]]:
    """For `x.name=NAME`: the document without the options that the new choice lacks, where to lay which override, and
    a note for each option lost."""
    above, name = path[:-1], override.value.tree
    entries = [kind.lookup(name) for kind in Place(root, document.tree, above).kinds()] if isinstance(name, str) else []
    if not entries or entries[0] is None:
        return document, path, override, []
    options, default = document.get(above), default_at(root, document.tree, above)
    there = options if isinstance(options, str) else options.get("name") if isinstance(options, dict) else None
    if name == (there or (default.name if default is not None else None)):  # it is there: its options stay
        key = override.key.removesuffix(".name")
        return document, above, replace(override, key=key), []
    dropped = [key for key in options if key not in entries[0].model_fields] if isinstance(options, dict) else []
    for key in dropped:
        document = document.without((*above, key))
    label = ".".join(map(str, above))
    lost = [(f"{label}.{key}", f"`{label}.{key}` is dropped: `{name}` has no such option") for key in dropped]
    return document, path, override, [Note("warning", "dropped", text, key) for key, text in lost]
