"""`dltrain list`: what can be written in an experiment, read from the classes themselves."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from dltrain.config import Choice, ConfigError, Diagnostic, Section, suggest
from dltrain.config.annotations import annotation_of, describe, is_kind, sections_within
from dltrain.config.section import field_docs, kinds
from dltrain.experiment.experiment import Experiment
from dltrain.models import Model

WIDTH = 100


def show(what: str | None, name: str | None, *, as_json: bool) -> str:
    """Everything, one section, one kind, the entries of a kind that match a pattern, or one entry whole.

    what: a kind or a key of the experiment (`optimizers`, `optimizer`), or `experiment`. Raises ConfigError when
    there is no such thing.
    """
    catalogues = kinds()
    if what is None:
        found = {kind: root.all_names() for kind, root in catalogues.items()}
        return _json(found) if as_json else _overview()
    root = _find(what)
    if not issubclass(root, Choice):
        if name is not None:
            raise _unknown(f"`{what}` is a section; it has no entry `{name}`", None, f"dltrain list {what}")
        return json.dumps({what: options(root)}, indent=2) if as_json else _whole(root, what)
    names = root.all_names() if name is None else root.matching(name)
    if not names:
        near = suggest(name or "", root.all_names())
        raise _unknown(f"no {root.singular()} is called `{name}`", near, f"`dltrain list {root.kind}` shows all")
    if as_json:
        return _json({root.kind: names})
    return _whole(_entry(root, names[0]), names[0]) if names == [name] else _lines(root, names, asked=name is not None)


def _find(what: str) -> type[Section]:
    """The section or kind that is called `what`, in the singular, the plural, or as a key of the experiment."""
    found: dict[str, type[Section]] = {"experiment": Experiment}
    for key, field in Experiment.model_fields.items():
        for section in sections_within(field.annotation):
            found[key] = section
    for kind, root in kinds().items():
        found |= {kind: root, root.singular(): root}
    if what not in found:
        names = ", ".join([*_own_sections(), *kinds()])
        raise _unknown(f"there is no kind or section `{what}`", suggest(what, found), f"there are: {names}")
    return found[what]


def _own_sections() -> dict[str, type[Section]]:
    """The experiment, and its sections that are not choices."""
    inner = {key: sections_within(field.annotation) for key, field in Experiment.model_fields.items()}
    return {"experiment": Experiment} | {key: cls for key, found in inner.items() for cls in found if not is_kind(cls)}


def _unknown(message: str, near: str | None, note: str) -> ConfigError:
    return ConfigError([Diagnostic(message, None, f"did you mean `{near}`?" if near else "", (note,))])


def _entry(root: type[Choice], name: str) -> type[Choice]:
    found = root.lookup(name)
    assert found is not None
    return found


def _json(names: Mapping[str, list[str]]) -> str:
    """{kind: [{"name", "summary", "documentation", "source", "options"}]}."""
    catalogues = kinds()
    facts: dict[type[Choice], dict[str, Any]] = {}  # of one class, thousands of names may be
    found: dict[str, list[dict[str, Any]]] = {}
    for kind in names:
        found[kind] = []
        for name in names[kind]:
            entry = _entry(catalogues[kind], name)
            if entry not in facts:
                facts[entry] = {
                    "summary": entry.summary(), "documentation": inspect.getdoc(entry) or "", "source": entry.source,
                    "options": options(entry),
                }  # fmt: skip
            found[kind].append({"name": name, **facts[entry]})
    return json.dumps(found, indent=2)


def options(cls: type[Section]) -> list[dict[str, Any]]:
    """The keys of a section: name, type in words, whether it is required, default, description."""
    docs = field_docs(cls)
    found = []
    for key, field in cls.model_fields.items():
        if key == "name" and issubclass(cls, Choice):
            continue
        option: dict[str, Any] = {"name": key, "type": describe(annotation_of(field)), "required": field.is_required()}
        if not field.is_required():
            option["default"] = _plain(field.get_default(call_default_factory=True))
        found.append({**option, "description": docs.get(key, "")})
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, Section):
        return value
    plain = value.model_dump(mode="json", exclude_defaults=True)
    return {"name": value.name, **plain} if isinstance(value, Choice) else plain


def _overview() -> str:
    """Every section with its keys, and every kind with the names of its entries."""
    parts = [(key, section.summary(), list(section.model_fields)) for key, section in _own_sections().items()]
    for root in kinds().values():
        names = [name for name in root.all_names() if "/" not in name]
        more = len(root.all_names()) - len(names)
        parts.append((root.kind, root.summary(), names + ([f"and {more} names of libraries"] if more else [])))
    fill = textwrap.TextWrapper(WIDTH, initial_indent="  ", subsequent_indent="  ").fill
    return "\n\n".join(f"{key}: {summary}\n{fill(', '.join(names))}" for key, summary, names in parts)


def _lines(root: type[Choice], names: list[str], *, asked: bool) -> str:
    """Each entry with its documentation in a line, and under it its options and source, once for names of one class.

    The many names of one library come under a single line, or are counted unless they are asked for. The
    options that most entries share are said once, at the end.
    """
    groups: dict[type[Choice], list[str]] = {}
    for name in names:
        groups.setdefault(_entry(root, name), []).append(name)
    base = _usual(root)
    width = max((len(name) for found in groups.values() if "/" not in found[0] for name in found), default=0)
    lines: list[str] = []
    for entry, found in groups.items():
        if "/" not in found[0]:
            lines += [f"{name:<{width}}  {entry.summary()}" for name in found]
            lines += _small_print(entry, base, " " * (width + 2))
        elif asked:
            lines += [entry.summary(), *(f"  {name}" for name in found)]
        else:
            pattern = found[0].split("/")[0] + "/*"
            lines.append(f'{pattern:<{width}}  {len(found)} names; to see them: dltrain list {root.kind} "{pattern}"')
    if _keys_of(base) and any("/" not in name for name in names):
        but = "" if all(issubclass(entry, base) for entry in root.catalogue) else ", but for those with `only`"
        every = f"options of every {root.singular()}{but}: {', '.join(_keys_of(base))}"
        lines += ["", *textwrap.wrap(every, WIDTH, subsequent_indent="  ")]
    return "\n".join(lines)


def _usual(root: type[Choice]) -> type[Choice]:
    """The class with the most options that three quarters of a kind's entries come from."""
    counts = Counter(base for entry in root.catalogue for base in entry.__mro__ if issubclass(base, root))
    shared = [base for base, count in counts.items() if count >= 0.75 * len(root.catalogue)]
    return max(shared, key=lambda base: len(base.model_fields), default=root)


def _keys_of(entry: type[Choice]) -> list[str]:
    return [key for key in entry.model_fields if key != "name"]


def _small_print(entry: type[Choice], base: type[Choice], indent: str) -> list[str]:
    """The options of an entry besides those of `base`, and its source: in one line where they fit."""
    usual, only = (_keys_of(base), "") if issubclass(entry, base) else ([], "only ")
    keys = [key for key in _keys_of(entry) if key not in usual]
    parts = [f"options: {only}{', '.join(keys)}"] if keys else []
    parts += [f"source: {entry.source}"] if entry.source else []
    if len(indent) + len("; ".join(parts)) <= WIDTH:
        parts = ["; ".join(parts)]
    fill = textwrap.TextWrapper(WIDTH, initial_indent=indent, subsequent_indent=indent + "  ").wrap
    return [line for part in parts for line in fill(part)]


def _whole(cls: type[Section], name: str) -> str:
    """One entry or section: its documentation and its keys."""
    kind = f" ({cls.singular()})" if issubclass(cls, Choice) else ""
    lines = [f"{name}{kind}", "", inspect.getdoc(cls) or ""]
    if issubclass(cls, Choice) and cls.source:
        lines += ["", f"source: {cls.source}"]
    sizes = getattr(cls, "parameters", {}) if issubclass(cls, Model) else {}
    published = [(shape, classes, count) for (of, shape, classes), count in sizes.items() if of == name]
    lines += [""] if published else []
    lines += [
        f"{count:,} parameters for images of {shape} and {classes} classes" for shape, classes, count in published
    ]
    keys = [line for option in _keys(cls, "") for line in option]
    return "\n".join([*lines, "", "options:" if issubclass(cls, Choice) else "keys:", *keys] if keys else lines)


def _keys(cls: type[Section], prefix: str) -> Iterator[list[str]]:
    """The lines of each key, and of those of the sections in it."""
    for option, field in zip(options(cls), _fields(cls), strict=True):
        default = "required" if option["required"] else f"default {json.dumps(option['default'])}"
        text = textwrap.wrap(option["description"], WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
        yield [f"  {prefix}{option['name']}: {option['type']}; {default}", *text]
        if cls is not Experiment:  # whose sections have pages of their own
            for section in sections_within(field):
                if not is_kind(section):
                    inner = "KEY." if "dict" in str(field) else ""
                    yield from _keys(section, f"{prefix}{option['name']}.{inner}")


def _fields(cls: type[Section]) -> list[Any]:
    return [field.annotation for key, field in cls.model_fields.items() if key != "name" or not issubclass(cls, Choice)]
