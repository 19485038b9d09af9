"""One document laid over another, by the rule that `overrides` states: mappings merge, choices know their names."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Any

from dltrain.config.diagnostics import ConfigError, Diagnostic
from dltrain.config.document import Document, KeyPath, Marks
from dltrain.config.hints import shown
from dltrain.config.section import Choice, Section
from dltrain.config.validation import Place

ABSENT = object()


def lay(
    root: type[Section], document: Document, path: KeyPath, value: Document, *, whole: bool = False,
    given: Container[str] = (),
) -> Document:  # fmt: skip
    """A copy of `document` with `value` laid over what is at `path`.

    value: its marks are those of the path and below it. whole: it replaces what is there. given: dotted keys that the
    same set of overrides sets. Raises ConfigError when `path` leads through something that has no keys.
    """
    above = {path[:depth]: value.marks[path[:depth]] for depth in range(1, len(path)) if path[:depth] in value.marks}
    over = {p: m for p, m in value.marks.items() if p[: len(path)] == path}
    merge = _Merge(root, document.tree, value, path, whole, given, dict(document.marks), over)
    tree = merge.descend(document.tree, path, ())
    kept = {p: m for p, m in merge.marks.items() if not any(p[: len(gone)] == gone for gone in merge.replaced)}
    return Document(tree, {**above, **kept, **merge.over}, [*document.problems, *value.problems])


@dataclass
class _Merge:
    """The way down to `path` in a tree, and the joining of `value` with what is there.

    marks, over: where what is there and the value were written; both grow with the names that were written alone.
    replaced: what no longer holds of what was there.
    """

    root: type[Section]
    tree: Any
    value: Document
    path: KeyPath
    whole: bool
    given: Container[str]
    marks: dict[KeyPath, Marks]
    over: dict[KeyPath, Marks]
    replaced: set[KeyPath] = field(default_factory=set)

    def descend(self, node: Any, rest: KeyPath, done: KeyPath) -> Any:
        """`node`, which is at `done`, with the value laid at `rest` below it."""
        if not rest:
            if self.whole:
                self.replaced.add(done)
            return self.value.tree if self.whole else self.join(node, self.value.tree, done)
        key, node = rest[0], self.opened(node, done)
        if node is None or node is ABSENT:
            node = [] if isinstance(key, int) else {}
        if isinstance(node, dict):
            if len(rest) > 1 or self.value.tree is not None:
                node = self.without_rivals(node, [key], done)
            return {**node, key: self.descend(node.get(key, ABSENT), rest[1:], (*done, key))}
        where = self.value.marks[self.path[: len(done) + 1]].key
        name = ".".join(map(str, done))
        if not isinstance(node, list):
            raise ConfigError([Diagnostic(f"`{name}` is {shown(node)}; it has no key `{key}`", where)])
        if not isinstance(key, int) or key >= len(node):
            message = f"`{name}` is a list of {len(node)} items, counted from 0; it has no item `{key}`"
            raise ConfigError([Diagnostic(message, where)])
        return [self.descend(x, rest[1:], (*done, i)) if i == key else x for i, x in enumerate(node)]

    def join(self, low: Any, high: Any, done: KeyPath) -> Any:
        """What `high` makes of `low`, which is at `done`."""
        nameless = low is ABSENT or (isinstance(low, dict) and "name" not in low)
        default = default_at(self.root, self.tree, done) if nameless and done else None
        if isinstance(high, str) and done and (default is not None or (isinstance(low, dict) and not nameless)):
            name: KeyPath = (*done, "name")
            self.over[name] = self.over[done]
            high = {"name": high}
        low = {} if low is ABSENT and default is not None else self.opened(low, done) if isinstance(high, dict) else low
        if not (isinstance(low, dict) and isinstance(high, dict)):
            self.replaced.add(done)
            return high
        there = low.get("name", default.name if default is not None else None)
        if done and "name" in high and high["name"] != there:
            self.replaced.add(done)
            return high
        if default is not None:
            high = {key: inner for key, inner in high.items() if key != "name"}
        low = self.without_rivals(low, (key for key, inner in high.items() if inner is not None), done)
        return {**low, **{key: self.join(low.get(key, ABSENT), inner, (*done, key)) for key, inner in high.items()}}

    def opened(self, node: Any, done: KeyPath) -> Any:
        """A bare name as a mapping."""
        if isinstance(node, str) and done:
            if written_at := self.marks.get(done):
                self.marks.setdefault((*done, "name"), written_at)
            return {"name": node}
        return node

    def without_rivals(self, node: dict[str, Any], new: Iterable[Any], done: KeyPath) -> dict[str, Any]:
        """`node` without the keys that those set `new` exclude."""
        new = set(new)
        owner = Place(self.root, self.tree, (*done, next(iter(new), ""))).owner
        rivals = {
            key
            for group in owner.rivals
            for one in group
            if new & set(one)
            for other in group
            if other is not one
            for key in other
        }
        gone = {key for key in rivals - new if key in node and ".".join(map(str, (*done, key))) not in self.given}
        self.replaced.update((*done, key) for key in gone)
        return {key: inner for key, inner in node.items() if key not in gone}


def completed(root: type[Section], tree: Any) -> Any:
    """`tree` with the default choice under each mapping that names none: `optimizer: {lr: 0.2}`."""

    def fill(node: Any, path: KeyPath) -> Any:
        if isinstance(node, list):
            return [fill(item, (*path, index)) for index, item in enumerate(node)]
        if not isinstance(node, dict):
            return node
        default = default_at(root, tree, path) if path and "name" not in node else None
        low = written(default) if default is not None else {}
        return {**low, **{key: fill(inner, (*path, key)) for key, inner in node.items()}}

    return fill(tree, ())


def default_at(root: type[Section], tree: Any, path: KeyPath) -> Choice | None:
    """The choice that stands at `path` when the tree names none there."""
    place = Place(root, tree, path)
    if place.path != path or place.field is None or place.owner_path != path[:-1]:
        return None
    default = place.field.default
    return default if isinstance(default, Choice) else None


def written(value: Any) -> Any:
    """What a file would have to say for a section: the fields that were given, not those by default."""
    if isinstance(value, Section):
        given = [key for key in type(value).model_fields if key == "name" or key in value.model_fields_set]
        return {key: written(getattr(value, key)) for key in given}
    if isinstance(value, dict):
        return {key: written(inner) for key, inner in value.items()}
    return [written(inner) for inner in value] if isinstance(value, (list, tuple)) else value
