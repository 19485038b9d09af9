"""The YAML reader: values as people write them, places of keys and values, and files it must refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from dltrain.config import ConfigError
from dltrain.config.diagnostics import Diagnostic, Span, cells
from dltrain.config.overrides import parse_override, set_value
from dltrain.config.source import merge, read_file, read_text, scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("5.0e-4", 5e-4), ("1_000", 1000), ("1_000.5", 1000.5), ("-2", -2), (".5", 0.5), ("5.", 5.0),
        ("1E5", 1e5), ("0x1F", 31), ("true", True), ("False", False), ("yes", "yes"), ("no", "no"), ("on", "on"),
        ("off", "off"), ("null", None), ("~", None), ("1.2.3", "1.2.3"), ("010", 10), ("1:30", "1:30"),
        ("2001-01-01", "2001-01-01"), ("1__0", "1__0"), ("-.inf", float("-inf")), ("e5", "e5"), ("_1", "_1"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    result = scalar(text)
    assert result == value
    assert type(result) is type(value)
    assert read_text(f"x: {text}", "f").tree == {"x": value}


def test_quoted_text_stays_text() -> None:
    assert read_text("a: '1'\nb: \"true\"\nc: 'null'", "f").tree == {"a": "1", "b": "true", "c": "null"}


def test_every_key_and_value_has_its_place() -> None:
    document = read_text("a: 1\nb:\n  - x\n  - {c: d}\n", "f.yaml")
    assert str(document.span(("b", 1, "c"))) == "f.yaml:4:9"
    assert str(document.span(("b", 1, "c"), key=True)) == "f.yaml:4:6"
    assert str(document.span(("b", 0))) == "f.yaml:3:5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "key `a` is given twice"),
        ("a: !!python/object/apply:os.system [ls]", "the YAML tag"),
        ("a: !!str 1", "is not allowed"),
        ("base: &b {x: 1}\nc:\n  <<: *b", "merge keys"),
        ("a: &a [*a]", "an alias contains itself"),
        ("[" * 30_000, "nested more than"),
        ("a: " + "[" * 60 + "]" * 60, "nested more than"),
        ("a: [1, 2", "not valid YAML"),
        ("a: 'x", "not valid YAML"),
        ("\ta: 1", "not valid YAML"),
        ("a: @x", "not valid YAML"),
        ("{[1, 2]: 3}", "a key must be a word"),
        ("", "the file is empty"),
        ("# nothing", "the file is empty"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_text(text, "f.yaml")
    assert message in str(caught.value)


def test_billion_laughs_is_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(ConfigError, match="aliases expand"):
        read_text("\n".join(lines), "f")


def test_plain_aliases_work() -> None:
    assert read_text("a: &x {lr: 1}\nb: *x", "f").tree == {"a": {"lr": 1}, "b": {"lr": 1}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1".encode("utf-16"), "UTF-16"), (b"a: \xff\xfe", "not UTF-8"), (b"x" * 2_000_000, "larger than"),
    ],
)  # fmt: skip
def test_files_that_are_not_experiments(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_file(path)


def test_files_without_an_end_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="folder"):
        read_file(tmp_path)
    if Path("/dev/zero").exists():
        with pytest.raises(ConfigError, match="larger than"):
            read_file(Path("/dev/zero"))


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").write_text("a: 1")
    with pytest.raises(ConfigError, match=r"digits\.yaml") as caught:
        read_file(tmp_path / "digit.yaml")
    assert "did you mean" in str(caught.value)


def test_byte_order_mark_and_crlf() -> None:
    assert read_text("a: 1\r\nb: x\r\n", "f").tree == {"a": 1, "b": "x"}


def test_carets_count_terminal_cells() -> None:
    assert cells("宽a") == 3
    span = Span("f", 1, 4, 2, "宽宽 ab")
    shown = Diagnostic("wrong", span).render().splitlines()
    assert shown[-1].index("^") == shown[-2].index("ab") + 2


def test_merging_mappings_merge_and_lists_are_replaced() -> None:
    base = read_text("a: {x: 1, y: 2}\nl: [1, 2]\nc: {name: sgd, lr: 1}\nd: {name: sgd, lr: 1}\ne: sgd", "base")
    over = read_text("a: {y: 3}\nl: [9]\nc: {name: adam}\nd: {name: sgd, m: 2}\ne: {name: sgd, lr: 3}", "over")
    merged = merge(base, over)
    assert merged.tree == {
        "a": {"x": 1, "y": 3}, "l": [9], "c": {"name": "adam"}, "d": {"name": "sgd", "lr": 1, "m": 2},
        "e": {"name": "sgd", "lr": 3},
    }  # fmt: skip
    assert merged.span(("a", "x")).origin == "base"
    assert merged.span(("a", "y")).origin == "over"
    assert merged.span(("l", 0)).origin == "over"
    assert ("l", 1) not in merged.marks


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimizer.lr=0.2", {"optimizer": {"name": "sgd", "lr": 0.2}, "list": [{"p": 1}, "x"]}),
        ("new.key=[a, {b: 1}]", {"optimizer": "sgd", "list": [{"p": 1}, "x"], "new": {"key": ["a", {"b": 1}]}}),
        ("list.0.p=4", {"optimizer": "sgd", "list": [{"p": 4}, "x"]}),
        ("optimizer=adam", {"optimizer": "adam", "list": [{"p": 1}, "x"]}),
        ("optimizer=", {"optimizer": None, "list": [{"p": 1}, "x"]}),
    ],
)
def test_overrides_set_dotted_keys(override: str, expected: object) -> None:
    document = read_text("optimizer: sgd\nlist: [{p: 1}, x]", "f")
    path, value = parse_override(override)
    result = set_value(document, path, value)
    assert result.tree == expected
    assert result.span(path).origin == "command line"


@pytest.mark.parametrize("override", ["lr", "=3", "a..b=1", "a b=1", "x=[1", "x={", "a.5.b=1", "n.x=1"])
def test_bad_overrides_are_quoted(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        path, value = parse_override(override)
        set_value(read_text("a: [1]\nn: 3", "f"), path, value)
    assert override in str(caught.value)
