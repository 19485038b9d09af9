"""Why a text is not YAML, in words for someone who does not know PyYAML's."""

from __future__ import annotations

import re

import yaml

# (PyYAML's problem, our sentence, a note, whether the place is where the construct began)
_EXPLANATIONS = [
    (r"mapping values are not allowed here", "`key: value` is not allowed here",
     "check the indentation, and that a space follows every `:` above; text with a `:` in it needs quotes", False),
    (r"could not find expected ':'", "there is no `:` after this key", "write `key: value`", True),
    (r"found character '\\t'", "a tab stands where YAML needs spaces", "indent with spaces", False),
    (r"found a tab character", "a tab stands where YAML needs spaces", "indent with spaces", False),
    (r"found character '(?P<found>[%@`])'", "text cannot begin with \"{found}\"", "put it in quotes", False),
    (r"while scanning a quoted scalar.*end of stream", "this quote is never closed", "", True),
    (r"while scanning a double-quoted scalar", "in double quotes, `\\` begins an escape sequence",
     "use single quotes, or `/` in paths", False),
    (r"while parsing a flow \w+ expected ',' or '(?P<end>[\]}])', but got '<stream end>'", "no `{end}` closes this",
     "", True),
    (r"while parsing a flow \w+ expected ',' or '(?P<end>[\]}])'", "expected `,` or `{end}` here", "", False),
    (r"while parsing a block (mapping|collection) expected <block end>",
     "this line does not fit the indentation of the lines above", "keys of one section begin in the same column",
     False),
    (r"sequence entries are not allowed here", "a list item (`- `) is not allowed here",
     "check the indentation; a list begins on the line below its key", False),
    (r"found undefined alias", "`*` begins an alias, and no anchor of this name is above",
     "text that begins with `*` needs quotes", False),
    (r"found another document", "a second document begins here; an experiment is one", "remove the `---`", False),
]  # fmt: skip


_NO_SPACE = re.compile(r"\s*(- )?\w+:(?=\S)")


def explain(error: yaml.MarkedYAMLError, lines: list[str]) -> tuple[str, yaml.Mark | None, str]:
    """What is wrong, where, and what would help."""
    late = {"mapping values are not allowed here": (error.problem_mark, 1),  # PyYAML notices `a:1` on the next line
            "could not find expected ':'": (error.context_mark, 0)}  # fmt: skip
    mark, above = late.get(error.problem or "", (None, 0))
    if mark is not None and mark.line >= above and (found := _NO_SPACE.match(lines[mark.line - above])):
        place = yaml.Mark(mark.name, mark.index, mark.line - above, found.end() - 1, None, 0)
        return "not valid YAML: a space must follow this `:`", place, ""
    if (stop := error.problem_mark) is not None and lines[stop.line][stop.column - 1 : stop.column + 1] == "${":
        return "not valid YAML: text with `{` in it needs quotes here", stop, "or write `$NAME`"
    text = " ".join(part for part in (error.context, error.problem) if part)
    for pattern, message, note, at_start in _EXPLANATIONS:
        if found := re.search(pattern, text):
            mark = error.context_mark if at_start else error.problem_mark
            return "not valid YAML: " + message.format(**found.groupdict()), mark or error.problem_mark, note
    return "not valid YAML: " + text, error.problem_mark or error.context_mark, ""
