"""Changes of dotted keys, `optimizer.lr=0.2`: one function applies them, for command line and sweep alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, get_args, get_origin

from dltrain.config.annotations import members, sections
from dltrain.config.diagnostics import ConfigError, Diagnostic, Span
from dltrain.config.document import Document, KeyPath, Marks, paths
from dltrain.config.hints import shown
from dltrain.config.reader import read_text, scalar
from dltrain.config.section import Section
from dltrain.config.validation import Place


@dataclass(frozen=True)
class Override:
    """A dotted key and the value to set there, whose marks quote the override."""

    key: str
    value: Document

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
        """The dotted `key` set to a Python value."""
        value = written(value)
        span = Span("override", 0, len(key) + 2, max(len(str(value)), 1), f"{key}={value}")
        return cls(key, Document(value, {path: Marks(None, span) for path in paths(value)}))

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


def written(value: Any) -> Any:
    """What a file would have to say for a section: the fields that were given, not those by default."""
    if isinstance(value, Section):
        given = [key for key in type(value).model_fields if key == "name" or key in value.model_fields_set]
        return {key: written(getattr(value, key)) for key in given}
    if isinstance(value, dict):
        return {key: written(inner) for key, inner in value.items()}
    return [written(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def apply(root: type[Section], document: Document, override: Override) -> tuple[Document, list[str]]:
    """`document` changed, and notes on the options that this made void.

    Where a choice's name changes, the options are kept that the new choice has too.
    Raises ConfigError when the key leads through something that has no keys.
    """
    path = resolve(root, document.tree, override.key)
    notes: list[str] = []
    if len(path) > 1 and path[-1] == "name":
        document, notes = _keep_common_options(root, document, path[:-1], override.value.tree)
    document = set_value(document, path, override.at(path))
    return replace(document, problems=[*document.problems, *override.value.problems]), notes


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


def _keep_common_options(
    root: type[Section], document: Document, path: KeyPath, name: Any
) -> tuple[Document, list[str]]:
    options = document.get(path)
    entries = [kind.lookup(name) for kind in Place(root, document.tree, path).kinds()] if isinstance(name, str) else []
    if not entries or entries[0] is None or not isinstance(options, dict):
        return document, []
    dropped = [key for key in options if key not in entries[0].model_fields]
    for key in dropped:
        document = document.without((*path, key))
    label = ".".join(map(str, path))
    return document, [f"`{label}.{key}` is dropped: `{name}` has no such option" for key in dropped]


def set_value(document: Document, path: KeyPath, value: Document) -> Document:
    """A copy of `document` with `value` at `path`; a bare name on the way becomes a mapping.

    value: its marks are those of the path and below it. Raises ConfigError when `path` leads through something
    that has no keys.
    """
    marks = {p: m for p, m in document.marks.items() if p[: len(path)] != path}
    for depth in range(1, len(path)):
        marks.setdefault(path[:depth], value.marks[path[:depth]])
    marks.update({p: m for p, m in value.marks.items() if p[: len(path)] == path})

    def descend(node: Any, rest: KeyPath, done: KeyPath) -> Any:
        if not rest:
            return value.tree
        key = rest[0]
        if isinstance(node, str) and done:
            node = {"name": node}
            marks.setdefault((*done, "name"), marks[done])
        if node is None:
            node = [] if isinstance(key, int) else {}
        if isinstance(node, dict):
            return {**node, key: descend(node.get(key), rest[1:], (*done, key))}
        where = value.marks[path[: len(done) + 1]].key
        name = ".".join(map(str, done))
        if not isinstance(node, list):
            raise ConfigError([Diagnostic(f"`{name}` is {shown(node)}; it has no key `{key}`", where)])
        if not isinstance(key, int) or key >= len(node):
            message = f"`{name}` is a list of {len(node)} items, counted from 0; it has no item `{key}`"
            raise ConfigError([Diagnostic(message, where)])
        return [descend(x, rest[1:], (*done, i)) if i == key else x for i, x in enumerate(node)]

    return Document(descend(document.tree, path, ()), marks, document.problems)
