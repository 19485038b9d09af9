"""`key=value` overrides: one function sets a dotted key in a Document, for command line and sweep alike."""

from __future__ import annotations

from typing import Any

from dltrain.config.diagnostics import ConfigError, Diagnostic, Span
from dltrain.config.source import Document, Key, Marks, Path_, paths, read_text, scalar


def parse_override(text: str) -> tuple[Path_, Document]:
    """`optimizer.lr=0.2` as its path and its value (YAML), with marks that quote the override."""

    def fail(message: str) -> ConfigError:
        span = Span("command line", 0, 1, max(len(text), 1), text)
        return ConfigError([Diagnostic(message, span, notes=("an override is KEY=VALUE: optimizer.lr=0.2",))])

    key, equals, value_text = text.partition("=")
    parts = key.strip().split(".")
    if not equals:
        raise fail(f"override `{text}` has no `=`")
    if not all(parts) or any(c.isspace() for c in key.strip()):
        raise fail(f"`{key}` is not a key")
    path: Path_ = tuple(int(p) if p.isdigit() else p for p in parts)
    span = Span("command line", 0, len(key) + 2, max(len(value_text), 1), text)
    if any(c in value_text for c in "[]{}\"'"):
        try:
            written = read_text(value_text, "command line")
        except ConfigError as error:
            raise fail(error.diagnostics[0].message) from None
        document = value_document(path, written.tree, span, text)
        for inner, marks in written.marks.items():
            if inner:
                place = (*path, *inner)
                document.marks[place] = Marks(_moved(marks.key, span), _moved(marks.value, span))
        return path, document
    return path, value_document(path, scalar(value_text.strip()), span, text)


def _moved(inner: Span | None, value: Span) -> Span:
    """A place within the value's text as a place within the whole override."""
    if inner is None:
        return value
    return Span(value.origin, 0, value.column + inner.column - 1, inner.length, value.source)


def value_document(path: Path_, value: Any, span: Span, text: str) -> Document:
    """`value` at `path`, every part of it marked with `span`, and the keys of `path` within `text`."""
    marks = {(*path, *inner): Marks(None, span) for inner in paths(value)}
    column = 1
    for depth, key in enumerate(path, 1):
        key_span = Span(span.origin, span.line, column, len(str(key)), text)
        whole = Span(span.origin, span.line, column, max(len(text) - column + 1, 1), text)
        marks[path[:depth]] = Marks(key_span, span if depth == len(path) else whole)
        column += len(str(key)) + 1
    return Document(value, marks)


def set_value(document: Document, path: Path_, value: Document) -> Document:
    """A copy of `document` with `value` at `path`; a bare name on the way becomes a mapping.

    Raises ConfigError when `path` leads through something that has no keys.
    """
    marks = {p: m for p, m in document.marks.items() if p[: len(path)] != path}
    for depth in range(1, len(path)):
        marks.setdefault(path[:depth], value.marks[path[:depth]])
    marks.update({p: m for p, m in value.marks.items() if p[: len(path)] == path})

    def descend(node: Any, rest: tuple[Key, ...], done: Path_) -> Any:
        if not rest:
            return value.tree
        key = rest[0]
        if isinstance(node, str) and done:
            node = {"name": node}
            marks.setdefault((*done, "name"), document.marks.get(done, value.marks[path[: len(done)]]))
        if node is None:
            node = {}
        if isinstance(node, dict):
            return {**node, str(key): descend(node.get(str(key)), rest[1:], (*done, str(key)))}
        where = value.marks[path[: len(done) + 1]].key
        name = ".".join(map(str, done))
        if isinstance(node, list):
            if not isinstance(key, int) or key >= len(node):
                message = f"`{name}` is a list of {len(node)}; `{key}` is not a place in it"
                raise ConfigError([Diagnostic(message, where)])
            return [descend(x, rest[1:], (*done, i)) if i == key else x for i, x in enumerate(node)]
        raise ConfigError([Diagnostic(f"`{name}` is {shown(node)}; it has no key `{key}`", where)])

    return Document(descend(document.tree, path, ()), marks)


def shown(value: Any) -> str:
    """A value as a message names it: `"two"`, `true`, `null`, `a list`, `a mapping`."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + (value if len(value) <= 40 else value[:37] + "...") + '"'
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
