"""YAML text -> Document: plain values, and for every key and value the place where it was written.

The reader is PyYAML's pure-Python parser (the C one crashes on deep nesting) with the scalars of
YAML 1.2: `1e-3` is a number, only `true` and `false` are booleans, `no` and `on` are text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dltrain.config.diagnostics import ConfigError, Diagnostic, Span

Key = str | int
Path_ = tuple[Key, ...]

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_VALUES = 50_000

_INTEGER = re.compile(r"[-+]?[0-9]+(_[0-9]+)*\Z")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+\Z|0o[0-7]+\Z")
_FLOAT = re.compile(r"[-+]?((([0-9]+(_[0-9]+)*)(\.[0-9]*(_[0-9]+)*)?)|(\.[0-9]+(_[0-9]+)*))([eE][-+]?[0-9]+)?\Z")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")


def scalar(text: str) -> Any:
    """The value of a plain (unquoted) YAML scalar: null, boolean, integer, float or text."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _INTEGER.match(text) and len(text) < 4000:
        return int(text)
    if _HEXADECIMAL.match(text) and len(text) < 4000:
        return int(text, 0)
    if _FLOAT.match(text):
        return float(text)
    if special := _SPECIAL.match(text):
        return float("nan") if special.group(3) else float(special.group(1) + "inf")
    return text


@dataclass(frozen=True)
class Marks:
    """Where a key and its value stand. List items and override values have no key."""

    key: Span | None
    value: Span


@dataclass
class Document:
    """A tree of plain values (dict, list, scalars) and the `Marks` of every path in it."""

    tree: Any
    marks: dict[Path_, Marks] = field(default_factory=dict)

    def span(self, path: Path_, *, key: bool = False) -> Span | None:
        """The place of `path`'s value (or key), or of the nearest parent that was written down."""
        marks = self.marks.get(path)
        if marks is not None:
            return marks.key if key and marks.key is not None else marks.value
        if not path:
            return None
        parent = self.marks.get(path[:-1])
        if parent is not None and parent.key is not None:
            return parent.key
        return self.span(path[:-1])

    def subtree(self, path: Path_) -> dict[Path_, Marks]:
        """The marks at and below `path`."""
        return {p: m for p, m in self.marks.items() if p[: len(path)] == path}


def read_file(path: Path) -> Document:
    """Read a YAML file. Raises ConfigError when it is missing, too large, not UTF-8 or not YAML."""

    def fail(message: str, *notes: str) -> ConfigError:
        return ConfigError([Diagnostic(message, Span(str(path)), notes=notes)], subject=str(path))

    try:
        if path.is_dir():
            raise fail(f"`{path}` is a folder, not an experiment file")
        with path.open("rb") as file:  # a bounded read: /dev/zero has no end
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise fail("no such file", *_neighbours(path)) from None
    except (OSError, ValueError) as error:
        raise fail(f"cannot read the file: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > MAX_BYTES:
        raise fail(f"the file is larger than {MAX_BYTES:,} bytes; an experiment is a small text file")
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise fail("the file is UTF-16 text; save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise fail(f"the file is not UTF-8 text (byte {error.start}, line {line}); save it as UTF-8") from None
    return read_text(text, str(path))


def _neighbours(path: Path) -> tuple[str, ...]:
    from dltrain.config.diagnostics import suggest

    try:
        names = [p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml")]
    except OSError:
        return ()
    near = suggest(path.name, names)
    return (f"did you mean `{path.parent / near}`?",) if near else ()


def read_text(text: str, origin: str) -> Document:
    """Parse YAML text; `origin` names it in diagnostics. Raises ConfigError, with every duplicate key."""
    lines = text.splitlines()

    def span(start: yaml.Mark, end: yaml.Mark) -> Span:
        same_line = end.line == start.line
        source = lines[start.line] if start.line < len(lines) else ""
        stop = end.column if same_line else len(source.rstrip())
        return Span(origin, start.line + 1, start.column + 1, max(stop - start.column, 1), source)

    def fail(message: str, mark: yaml.Mark | None, *notes: str) -> ConfigError:
        where = span(mark, mark) if mark is not None else Span(origin)
        return ConfigError([Diagnostic(message, where, notes=notes)], subject=origin)

    try:
        root = _compose(text, fail)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = "not valid YAML: " + " ".join(x for x in (error.context, error.problem) if x)
        notes = ("indent with spaces, not tabs",) if "'\\t'" in message else ()
        raise fail(message, mark, *notes) from None
    except yaml.YAMLError as error:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise fail(f"not valid YAML: {message}", None) from None
    except RecursionError:
        raise fail("the file is nested too deeply", None) from None
    if root is None:
        raise fail("the file is empty", None, "a smallest experiment: {data: digits, model: mlp}")
    return _construct(root, span, origin)


class _Loader(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser, yaml.composer.Composer):
    """PyYAML's reader without any constructor or resolver: it can make nodes, never objects."""

    def __init__(self, text: str) -> None:
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)
        yaml.composer.Composer.__init__(self)

    def descend_resolver(self, current_node: Any, current_index: Any) -> None: ...

    def ascend_resolver(self) -> None: ...

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        return "plain" if kind is yaml.ScalarNode and implicit[0] else "text"


def _compose(text: str, fail: Any) -> yaml.Node | None:
    """The node tree, after a flat pass over the events that bounds depth, size and aliases."""
    depth = count = 0
    loader = _Loader(text)
    while loader.check_event():
        event = loader.get_event()  # type: ignore[no-untyped-call]
        count += 1
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        if depth > MAX_DEPTH:
            raise fail(f"the file is nested more than {MAX_DEPTH} levels deep", event.start_mark)
        if count > MAX_VALUES:
            raise fail(f"the file holds more than {MAX_VALUES:,} values", event.start_mark)
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":
            raise fail(
                f"the YAML tag `{tag.replace('tag:yaml.org,2002:', '!!')}` is not allowed", event.start_mark,
                "an experiment holds only mappings, lists, numbers, text, true/false and null",
            )  # fmt: skip
    node: yaml.Node | None = _Loader(text).get_single_node()
    return node


def _construct(root: yaml.Node, span: Any, origin: str) -> Document:
    marks: dict[Path_, Marks] = {}
    problems: list[Diagnostic] = []
    remaining = MAX_VALUES
    open_nodes: set[int] = set()

    def value(node: yaml.Node, path: Path_, key: Span | None) -> Any:
        nonlocal remaining
        remaining -= 1
        here = span(node.start_mark, node.end_mark)
        if remaining < 0:
            message = f"aliases expand to more than {MAX_VALUES:,} values"
            raise ConfigError([Diagnostic(message, here)], subject=origin)
        marks[path] = Marks(key, here)
        if isinstance(node, yaml.ScalarNode):
            return scalar(node.value) if node.tag == "plain" else node.value
        if id(node) in open_nodes:
            raise ConfigError([Diagnostic("an alias contains itself", here)], subject=origin)
        open_nodes.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [value(item, (*path, i), None) for i, item in enumerate(node.value)]
            return mapping(node, path)
        finally:
            open_nodes.discard(id(node))

    def mapping(node: yaml.Node, path: Path_) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            where = span(key_node.start_mark, key_node.end_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                problems.append(Diagnostic("a key must be a word, not a list or mapping", where))
                continue
            key = key_node.value
            if key == "<<" and key_node.tag == "plain":
                note = "to share settings between files, write `extends: other.yaml`"
                problems.append(Diagnostic("merge keys (`<<`) are not supported", where, notes=(note,)))
                continue
            if key in result:
                here = (*path, key)
                first = marks[here].key
                note = f"first given on line {first.line}" if first else ""
                problems.append(Diagnostic(f"key `{key}` is given twice", where, notes=(note,)))
                continue
            result[key] = value(value_node, (*path, key), where)
        return result

    tree = value(root, (), None)
    if problems:
        raise ConfigError(problems, subject=origin)
    return Document(tree, marks)


def merge(base: Document, over: Document, path: Path_ = ()) -> Document:
    """`over` on top of `base`: mappings merge, lists and scalars are replaced.

    Below the root, a mapping with another `name` (or a bare name) is another choice, and replaces
    the first whole.
    """
    low, high = base.tree, over.tree
    if path:
        if isinstance(low, str) and isinstance(high, Mapping):
            low = {"name": low}
        elif isinstance(low, Mapping) and isinstance(high, str) and "name" in low:
            high = {"name": high}
    both = isinstance(low, Mapping) and isinstance(high, Mapping)
    if not both or (path and "name" in high and high["name"] != low.get("name")):
        return over
    tree: dict[str, Any] = dict(low)
    marks = {**base.subtree(path), path: over.marks.get(path, base.marks.get(path))}
    for key, value in high.items():
        here = (*path, key)
        if key in low:
            part = merge(Document(low[key], base.subtree(here)), Document(value, over.subtree(here)), here)
        else:
            part = Document(value, over.subtree(here))
        tree[key] = part.tree
        marks = {p: m for p, m in marks.items() if p[: len(here)] != here}
        marks.update(part.marks)
    return Document(tree, {p: m for p, m in marks.items() if m is not None})


def paths(tree: Any, prefix: Path_ = ()) -> Iterator[Path_]:
    """Every path in a tree of dicts and lists, parents first."""
    yield prefix
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from paths(value, (*prefix, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from paths(value, (*prefix, index))
