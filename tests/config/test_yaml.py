"""The YAML reader: values as people write them, places of keys and values, and files it must refuse."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
import yaml

from dltrain.config import ConfigError, Section
from dltrain.config.dump import to_yaml
from dltrain.config.merging import lay
from dltrain.config.reader import MAX_BYTES, read_file, read_text, scalar


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


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a: 3\t# c", {"a": 3}), ("a:\t{b: 1}", {"a": {"b": 1}}), ("a: {b: 1,\tc: 2}", {"a": {"b": 1, "c": 2}}),
        ("a: 3\t", {"a": 3}), ("a: x\ty", {"a": "x\ty"}), ("a: 1\n\t\nb: 2\n\t# c", {"a": 1, "b": 2}),
        ("a: [1,\n\t2]\t", {"a": [1, 2]}), ('"a"\t:\t"b"\t', {"a": "b"}), ("a: x \t y\n  z", {"a": "x \t y z"}),
    ],
)  # fmt: skip
def test_tabs_separate(text: str, tree: object) -> None:
    assert read_text(text, "f").tree == tree


def test_tabs_do_not_indent() -> None:
    with pytest.raises(ConfigError, match="a tab stands where YAML needs spaces") as caught:
        read_text("a:\t# c\n\tb: 1", "f")
    assert "f:2:1" in str(caught.value)


def test_every_json_text_is_read() -> None:
    values = {"name": "run 😀 é\n", "quoted 𝄞": ['"', "\\", "\t/", "\u2028"], "n": [1.5e-7, -3, True, None, {}]}
    for indent in (None, "\t"):
        assert read_text(json.dumps(values, indent=indent), "f.json").tree == values
    document = read_text('{"name": "\\ud83d!"}', "f.json")
    assert [problem.message for problem in document.problems] == [
        "this text holds half of a surrogate pair, which is no character"
    ]


def test_every_key_and_value_has_its_place() -> None:
    document = read_text("a: 1\nb:\n  - x\n  - {c: d}\n", "f.yaml")
    assert str(document.span(("b", 1, "c"))) == "f.yaml:4:9"
    assert str(document.span(("b", 1, "c"), key=True)) == "f.yaml:4:6"
    assert str(document.span(("b", 0))) == "f.yaml:3:5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system [ls]", "the YAML tag `!!python/object/apply:os.system` is not allowed"),
        ("a: !!str 1", "the YAML tag `!!str` is not allowed"),
        ("a: &a [*a]", "an alias contains itself"),
        ("[" * 30_000, "nested more than"),
        ("{a: " * 30_000, "nested more than"),
        ("- " * 30_000, "nested more than"),
        ("a: " + "[" * 60 + "]" * 60, "nested more than"),
        ("a: [" + "1, " * 30_000 + "1]", "holds more than"),
        ("a: [1, 2", "no `]` closes this"),
        ("a: 'x", "this quote is never closed"),
        ("\ta: 1", "a tab stands where YAML needs spaces"),
        ("a: @x", 'text cannot begin with "@"'),
        ("", "the file is empty"),
        ("# nothing", "the file is empty"),
        ("a: 1\n---\nb: 2", "a second document begins here"),
        ("a: \x00", "the control character U+0000"),
        ("%YAML 1.1\n%YAML 1.1\n---\na: 1", "not valid YAML"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_text(text, "f.yaml")
    assert message in str(caught.value)


def test_a_control_character_is_shown_where_it_is() -> None:
    with pytest.raises(ConfigError, match="U\\+0007") as caught:
        read_text("a: 1\nbc: \x07x", "f.yaml")
    assert "f.yaml:2:5" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message", "tree"),
    [
        ("a: 1\nb: 2\na: 3", "key `a` is given twice", {"a": 1, "b": 2}),
        ("base: &b {x: 1}\nc: {<<: *b, y: 2}", "merge keys", {"base": {"x": 1}, "c": {"y": 2}}),
        ("{[1, 2]: 3, a: 1}", "a key must be a word", {"a": 1}),
    ],
)
def test_wrong_keys_are_noted_and_the_rest_is_read(text: str, message: str, tree: object) -> None:
    document = read_text(text, "f.yaml")
    assert document.tree == tree
    assert [message in problem.message for problem in document.problems] == [True]


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
        ("a: 1".encode("utf-16"), "UTF-16"), (b"a: \xff\xfe", "not UTF-8"), (b"x" * (MAX_BYTES + 1), "larger than"),
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


def test_byte_order_mark_and_crlf(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: x\r\n")
    document = read_file(path)
    assert document.tree == {"a": 1, "b": "x"}
    where = document.span(("b",))
    assert where is not None
    assert (where.line, where.column, where.source) == (2, 4, "b: x")


def test_broken_links_and_files_that_cannot_be_read(tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match=r"this is a link to `.*nowhere.yaml`, which is not there") as caught:
        read_file(link)
    assert "did you mean" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot read the file"):
        read_file(Path("a\0b.yaml"))
    with pytest.raises(ConfigError, match="cannot read the file"):
        read_file(tmp_path / ("x" * 300 + ".yaml"))
    closed = tmp_path / "closed.yaml"
    closed.write_text("a: 1")
    closed.chmod(0)
    if not os.access(closed, os.R_OK):  # root reads everything
        with pytest.raises(ConfigError, match="cannot read the file"):
            read_file(closed)


def test_merging_mappings_merge_and_lists_are_replaced() -> None:
    base = read_text("a: {x: 1, y: 2}\nl: [1, 2]\nc: {name: sgd, lr: 1}\nd: {name: sgd, lr: 1}\ne: sgd", "base")
    over = read_text("a: {y: 3}\nl: [9]\nc: {name: adam}\nd: {name: sgd, m: 2}\ne: {name: sgd, lr: 3}", "over")
    merged = lay(Section, base, (), over)
    assert merged.tree == {
        "a": {"x": 1, "y": 3}, "l": [9], "c": {"name": "adam"}, "d": {"name": "sgd", "lr": 1, "m": 2},
        "e": {"name": "sgd", "lr": 3},
    }  # fmt: skip
    assert merged.span(("a", "x")).origin == "base"
    assert merged.span(("a", "y")).origin == "over"
    assert merged.span(("l", 0)).origin == "over"
    assert ("l", 1) not in merged.marks


def test_a_dump_is_the_same_with_and_without_libyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    """What libyaml would escape, as it does emojis, stands as it is; what can only be escaped is."""
    draw, kinds = random.Random(0), "ab c:#-{}[]'\"\\\n\t,&*!|>%@`é写😀\u2028\x85\x07 0.1e\ud800"
    texts = ["".join(draw.choices(kinds, k=draw.randrange(1, 12))) for _ in range(500)]
    values = {
        text: [*draw.sample(texts, 2), None, True, 1e-5, 10**20, 0.1, "no", "1e3", "x " * 80, {other: [[], {}]}]
        for text, other in zip(texts, texts[::-1], strict=True)
    }
    one = {key: to_yaml({key: value}) for key, value in values.items()}
    assert any("\\" not in text for text in one.values()) and any("😀" in text for text in one.values())
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    assert one == {key: to_yaml({key: value}) for key, value in values.items()}


def test_a_text_that_is_read_again_is_read_as_the_first_time() -> None:
    """What the first reader does with its values, and where it says they are, is nothing to the next one."""
    text = "data: digits\nmodel: {name: mlp, hidden: [1, 2]}\nmodel: x\n"
    one, two = read_text(text, "a.yaml"), read_text(text, "b.yaml")
    one.tree["model"]["hidden"].append(3)
    one.problems.clear()
    assert two.tree == {"data": "digits", "model": {"name": "mlp", "hidden": [1, 2]}}
    assert [str(problem.where) for problem in two.problems] == ["b.yaml:3:1"]
    for origin in ("a.yaml", "b.yaml"):
        with pytest.raises(ConfigError) as raised:
            read_text("x: !!python/name:os.system\n", origin)
        assert str(raised.value.diagnostics[0].where) == f"{origin}:1:4"
