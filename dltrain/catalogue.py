"""`dltrain list`: what can be written in an experiment, read from the classes themselves."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from dltrain.config import Choice, ConfigError, Diagnostic, Section, suggest
from dltrain.config.section import field_docs
from dltrain.config.validation import describe_field


def kinds() -> dict[str, type[Choice]]:
    """Every kind by its plural name. Importing Experiment has completed the catalogues."""
    import dltrain.experiment  # noqa: F401  (imports every catalogue)

    found: dict[str, type[Choice]] = {}
    pending = list(Choice.__subclasses__())
    while pending:
        cls = pending.pop()
        if "kind" in cls.__dict__ and cls.kind:
            found[cls.kind] = cls
    return dict(sorted(found.items()))


def show(kind: str | None, name: str | None, *, as_json: bool) -> str:
    """The catalogues, one catalogue, the entries that match a pattern, or one entry whole."""
    roots = kinds()
    if kind is None:
        if as_json:
            return json.dumps({k: [entry(root, n) for n in root.all_names()] for k, root in roots.items()}, indent=2)
        return "\n\n".join(_overview(root) for root in roots.values())
    root = roots.get(kind) or roots.get(kind + "s")
    if root is None:
        near = suggest(kind, roots)
        hint = f"did you mean `{near}`?" if near else ""
        raise _unknown(f"there is no kind `{kind}`", hint, f"kinds: {', '.join(roots)}")
    if name is None:
        return json.dumps([entry(root, n) for n in root.all_names()], indent=2) if as_json else _lines(root)
    names = root.matching(name) if any(c in name for c in "*?[") else [name]
    if not names or root.lookup(names[0]) is None:
        near = suggest(name, root.all_names())
        hint = f"did you mean `{near}`?" if near else ""
        raise _unknown(f"no {root.singular()} matches `{name}`", hint, f"`dltrain list {root.kind}` shows all")
    if as_json:
        entries = [entry(root, n) for n in names]
        return json.dumps(entries if len(entries) > 1 else entries[0], indent=2)
    return _lines(root, names) if len(names) > 1 else _whole(root, names[0])


def _unknown(message: str, hint: str, note: str) -> ConfigError:
    error = ConfigError([Diagnostic(message, None, hint, (note,))])
    error.summary = lambda: ""  # type: ignore[method-assign]
    return error


def entry(root: type[Choice], name: str) -> dict[str, Any]:
    """One entry as plain data: name, summary, source, options."""
    cls = root.lookup(name)
    assert cls is not None
    return {"name": name, "summary": cls.summary(), "source": cls.source, "options": options(cls)}


def options(cls: type[Section]) -> list[dict[str, Any]]:
    """The options of an entry: key, type in words, default, description."""
    docs = field_docs(cls)
    result = []
    for key, field in cls.model_fields.items():
        if key == "name":
            continue
        option: dict[str, Any] = {"name": key, "type": describe_field(field), "required": field.is_required()}
        if not field.is_required():
            option["default"] = _plain(field.get_default(call_default_factory=True))
        result.append({**option, "description": docs.get(key, "")})
    return result


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, Section) else value


def _overview(root: type[Choice]) -> str:
    names = root.all_names()
    own = [n for n in names if "/" not in n]
    more = len(names) - len(own)
    text = ", ".join(own) + (f", and {more} names of libraries" if more else "")
    return f"{root.kind}: {root.summary()}\n" + textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="  ")


def _lines(root: type[Choice], names: list[str] | None = None) -> str:
    """A line an entry; the many names of a library as one line, unless they are asked for."""
    asked = names is not None
    names = names if names is not None else root.all_names()
    width = min(max(map(len, names), default=0), 32)
    lines = []
    libraries: dict[str, int] = {}
    for name in names:
        library = name.split("/")[0] + "/*" if "/" in name else ""
        if library and not asked:
            libraries[library] = libraries.get(library, 0) + 1
            continue
        cls = root.lookup(name)
        assert cls is not None
        lines.append(f"{name:<{width}}  {cls.summary()}".rstrip())
    for library, count in libraries.items():
        lines.append(f'{library:<{width}}  {count} models; to see them: dltrain list {root.kind} "{library}"')
    return "\n".join(lines)


def _whole(root: type[Choice], name: str) -> str:
    cls = root.lookup(name)
    assert cls is not None
    import inspect

    lines = [f"{name} ({root.singular()})", "", inspect.getdoc(cls) or ""]
    if cls.source:
        lines += ["", f"source: {cls.source}"]
    if found := options(cls):
        lines += ["", "options:"]
        for option in found:
            default = "required" if option["required"] else f"default {json.dumps(option['default'])}"
            lines.append(f"  {option['name']}: {option['type']}; {default}")
            if option["description"]:
                indent = " " * 6
                lines += textwrap.wrap(option["description"], 96, initial_indent=indent, subsequent_indent=indent)
    return "\n".join(lines)
