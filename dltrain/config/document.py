"""A Document: the plain values of a YAML text, and for each the place where it was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dltrain.config.diagnostics import Diagnostic, Span

Key = str | int
KeyPath = tuple[Key, ...]
"""`augmentation.0.padding` as ("augmentation", 0, "padding")."""


@dataclass(frozen=True)
class Marks:
    """Where a key and its value stand. List items and override values have no key."""

    key: Span | None
    value: Span


@dataclass
class Document:
    """A tree of plain values (dict, list, scalars), the `Marks` of every path in it, and the mistakes found so far."""

    tree: Any
    marks: dict[KeyPath, Marks] = field(default_factory=dict)
    problems: list[Diagnostic] = field(default_factory=list)

    def get(self, path: KeyPath) -> Any:
        """The value at `path`, or None."""
        value = self.tree
        for key in path:
            if isinstance(value, Mapping):
                value = value.get(key)
            elif isinstance(value, list) and isinstance(key, int) and key < len(value):
                value = value[key]
            else:
                return None
        return value

    def span(self, path: KeyPath, *, key: bool = False) -> Span | None:
        """The place of `path`'s value (or key); else of the nearest key above it, or the file alone."""
        if marks := self.marks.get(path):
            return marks.key if key and marks.key is not None else marks.value
        if len(path) > 1:
            return self.span(path[:-1], key=True)
        root = self.marks.get(())
        return Span(root.value.origin) if root is not None else None

    def without(self, path: KeyPath) -> Document:
        """A copy without the key at `path`."""
        marks = {p: m for p, m in self.marks.items() if p[: len(path)] != path}
        return Document(_without(self.tree, path), marks, self.problems)


def _without(tree: Any, path: KeyPath) -> Any:
    first, rest = path[0], path[1:]
    if isinstance(tree, list):
        return [_without(item, rest) if index == first else item for index, item in enumerate(tree)]
    if not isinstance(tree, dict) or first not in tree:
        return tree
    others = {key: value for key, value in tree.items() if key != first}
    return {**tree, first: _without(tree[first], rest)} if rest else others


def paths(tree: Any, prefix: KeyPath = ()) -> Iterator[KeyPath]:
    """Every path in a tree of dicts and lists, parents first."""
    yield prefix
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from paths(value, (*prefix, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from paths(value, (*prefix, index))
