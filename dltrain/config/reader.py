"""YAML text -> Document.

The reader is PyYAML's pure-Python parser (the C one crashes on deep nesting) with the scalars of
YAML 1.2: `1e-3` is a number, only `true` and `false` are booleans, `no` and `on` are text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from dltrain.config.diagnostics import ConfigError, Diagnostic, Span, suggest
from dltrain.config.document import Document, KeyPath, Marks
from dltrain.config.syntax import explain

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_VALUES = 20_000
_KEPT = 50_000
"""Characters of a text up to which its events are kept."""

_INTEGER = re.compile(r"[-+]?[0-9]+(_[0-9]+)*\Z")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+\Z|0o[0-7]+\Z")
_FLOAT = re.compile(r"[-+]?((([0-9]+(_[0-9]+)*)(\.[0-9]*(_[0-9]+)*)?)|(\.[0-9]+(_[0-9]+)*))([eE][-+]?[0-9]+)?\Z")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")  # as PyYAML counts lines


def scalar(text: str) -> Any:
    """The value of a plain (unquoted) YAML scalar: null, boolean, integer, float or text."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _INTEGER.match(text) and len(text) < 300:
        return int(text)
    if _HEXADECIMAL.match(text) and len(text) < 300:
        return int(text, 0)
    if _FLOAT.match(text):
        return float(text)
    if special := _SPECIAL.match(text):
        return float("nan") if special.group(3) else float(special.group(1) + "inf")
    return text


def read_file(path: Path) -> Document:
    """Read a YAML file. Raises ConfigError when it is missing, too large, not UTF-8 or not YAML."""

    def fail(message: str, *notes: str) -> ConfigError:
        return ConfigError([Diagnostic(message, Span(str(path)), notes=notes)], subject=str(path))

    try:
        if path.is_dir():
            raise fail("this is a folder, not an experiment file")
        with path.open("rb") as file:  # a bounded read: /dev/zero has no end
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise fail(missing(path), *neighbours(path)) from None
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


def missing(path: Path) -> str:
    """What to say of a file that is not there."""
    try:
        return f"this is a link to `{path.readlink()}`, which is not there" if path.is_symlink() else "no such file"
    except (OSError, ValueError):  # a name that no file can have
        return "no such file"


def neighbours(path: Path) -> tuple[str, ...]:
    """A note on the YAML file beside a missing `path` that is called nearly the same."""
    try:
        names = [p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file()]
    except (OSError, ValueError):
        return ()
    near = suggest(path.name, names)
    return (f"did you mean `{path.parent / near}`?",) if near else ()


def read_text(text: str, origin: str) -> Document:
    """Parse YAML text; `origin` names it in diagnostics.

    Raises ConfigError when it is no YAML or too much of it. Keys that are wrong as such, such as one given
    twice, are left out and noted in the document's `problems`.
    """
    lines = _LINE_BREAK.split(text)

    def span(start: yaml.Mark, end: yaml.Mark) -> Span:
        source = lines[start.line] if start.line < len(lines) else ""
        stop = end.column if end.line == start.line else len(source.rstrip())
        return Span(origin, start.line + 1, start.column + 1, max(stop - start.column, 1), source)

    def fail(message: str, where: Span | None = None, *notes: str) -> ConfigError:
        return ConfigError([Diagnostic(message, where or Span(origin), notes=notes)], subject=origin)

    events = _events if len(text) <= _KEPT else _events.__wrapped__
    try:
        root = _Composer(events(text)).get_single_node()
    except _RefusedError as error:
        where = span(error.event.start_mark, error.event.end_mark)
        raise fail(error.message, replace(where, length=error.length or where.length), *error.notes) from None
    except yaml.MarkedYAMLError as error:
        message, mark, note = explain(error, lines)
        raise fail(message, span(mark, mark) if mark else None, note) from None
    except yaml.reader.ReaderError as error:
        before = _LINE_BREAK.split(text[: error.position])
        where = Span(origin, len(before), len(before[-1]) + 1, 1, lines[len(before) - 1])
        raise fail(f"not valid YAML: the control character U+{ord(text[error.position]):04X}", where) from None
    if root is None:
        raise fail("the file is empty", None, "a smallest experiment: {data: digits, model: mlp}")
    return _construct(root, span, origin)


class _Parser(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser):
    """PyYAML's parser without resolvers and constructors: it makes events, never objects."""

    def __init__(self, text: str) -> None:
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)

    def scan_to_next_token(self) -> None:
        """To the next token. A tab is white space between tokens, as YAML 1.2 has it; it does not indent a block."""
        super().scan_to_next_token()
        while self.peek() == "\t" and (self.flow_level or not self._is_indentation()):
            self.forward()
            super().scan_to_next_token()

    def _is_indentation(self) -> bool:
        """Whether the tab that comes stands before the first character of its line."""
        rest = self.buffer[self.pointer :].lstrip(" \t")
        before = self.buffer[self.pointer - self.column : self.pointer]
        return not before.strip() and rest[:1] not in ("\r", "\n", "#", "\0")

    def scan_plain_spaces(self, indent: int, start_mark: yaml.Mark) -> list[str] | None:
        """The white space behind a word of unquoted text, with the tabs in it."""
        length = 0
        while self.peek(length) in " \t":
            length += 1
        space = self.prefix(length)
        if "\t" not in space:
            return super().scan_plain_spaces(indent, start_mark)
        self.forward(length)
        return [space] if self.peek() not in "\r\n\x85\u2028\u2029" else super().scan_plain_spaces(indent, start_mark)


class _Composer(yaml.composer.Composer):
    """Nodes from events. A node's tag says whether it is plain text, which may be a number."""

    def __init__(self, events: Sequence[yaml.Event]) -> None:
        super().__init__()
        self.events = list(reversed(events))

    def check_event(self, *kinds: type[yaml.Event]) -> bool:
        return bool(self.events) and (not kinds or isinstance(self.events[-1], kinds))

    def peek_event(self) -> yaml.Event:
        return self.events[-1]

    def get_event(self) -> yaml.Event:
        return self.events.pop()

    def descend_resolver(self, current_node: Any, current_index: Any) -> None: ...

    def ascend_resolver(self) -> None: ...

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        return "plain" if kind is yaml.ScalarNode and implicit[0] else "text"


class _RefusedError(Exception):
    """An event that no experiment has. length: of what is shown of its line, if not all."""

    def __init__(self, message: str, event: Any, length: int | None = None, *notes: str) -> None:
        self.message, self.event, self.length, self.notes = message, event, length, notes


@lru_cache(maxsize=8)  # an experiment is read again from each of its files and checkpoints
def _events(text: str) -> tuple[yaml.Event, ...]:
    """The events of a text whose depth and size are bounded, and that has no tags. Raises _RefusedError."""
    depth = 0
    events: list[yaml.Event] = []
    parser = _Parser(text)
    while parser.check_event():
        event = parser.get_event()  # type: ignore[no-untyped-call]
        events.append(event)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise _RefusedError(f"the file is nested more than {MAX_DEPTH} levels deep", event)
        if len(events) > MAX_VALUES:
            raise _RefusedError(f"the file holds more than {MAX_VALUES:,} values", event)
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":
            shown = tag.replace("tag:yaml.org,2002:", "!!")
            note = "an experiment holds only mappings, lists, numbers, text, true/false and null"
            raise _RefusedError(f"the YAML tag `{shown}` is not allowed", event, len(shown), note)
    return tuple(events)


Spans = Callable[[yaml.Mark, yaml.Mark], Span]


def _construct(root: yaml.Node, span: Spans, origin: str) -> Document:
    marks: dict[KeyPath, Marks] = {}
    problems: list[Diagnostic] = []
    remaining = MAX_VALUES
    open_nodes: set[int] = set()

    def value(node: yaml.Node, path: KeyPath, key: Span | None) -> Any:
        nonlocal remaining
        remaining -= 1
        here = span(node.start_mark, node.end_mark)
        marks[path] = Marks(key, here)
        if remaining < 0:
            raise ConfigError([Diagnostic(f"aliases expand to more than {MAX_VALUES:,} values", marks[path[:1]].value)],
                              subject=origin)  # fmt: skip
        if isinstance(node, yaml.ScalarNode):
            return scalar(node.value) if node.tag == "plain" else text(node, here)
        if id(node) in open_nodes:
            raise ConfigError([Diagnostic("an alias contains itself", here)], subject=origin)
        open_nodes.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [value(item, (*path, i), None) for i, item in enumerate(node.value)]
            return mapping(node, path)
        finally:
            open_nodes.discard(id(node))

    def text(node: yaml.Node, here: Span) -> str:
        """The text of a scalar. JSON writes characters beyond U+FFFF as two escapes, a surrogate pair."""
        found: str = node.value
        if found.isascii() or not _SURROGATE.search(found):
            return found
        try:
            return found.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            problems.append(Diagnostic("this text holds half of a surrogate pair, which is no character", here))
            return _SURROGATE.sub("\ufffd", found)

    def mapping(node: yaml.Node, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            where = span(key_node.start_mark, key_node.end_mark)
            key = text(key_node, where) if isinstance(key_node, yaml.ScalarNode) else ""
            if not isinstance(key_node, yaml.ScalarNode):
                problems.append(Diagnostic("a key must be a word, not a list or mapping", where))
            elif key == "<<" and key_node.tag == "plain":
                note = "to share settings between files, write `extends: other.yaml`"
                problems.append(Diagnostic("merge keys (`<<`) are not supported", where, notes=(note,)))
            elif key in result:
                here = (*path, key)
                first = marks[here].key
                note = f"first given on line {first.line}" if first else ""
                problems.append(Diagnostic(f"key `{key}` is given twice", where, notes=(note,)))
            else:
                result[key] = value(value_node, (*path, key), where)
        return result

    tree = value(root, (), None)
    return Document(tree, marks, problems)
