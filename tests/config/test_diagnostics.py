"""Every broken experiment in tests/config/broken gets exactly the message that stands beside it in NAME.txt.

To write the messages anew after a change (then read them): UPDATE_MESSAGES=1 pytest tests/config/test_diagnostics.py
Overrides for a file stand in its first line: `# check with: KEY=VALUE ...`.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from dltrain.config import ConfigError
from dltrain.config.diagnostics import Diagnostic, Span, cells, suggest
from dltrain.experiment.experiment import Experiment

BROKEN = Path(__file__).parent / "broken"
NAMES = sorted(path.stem for path in BROKEN.glob("*.yaml"))


def message(name: str) -> str:
    """What `dltrain check` says about the broken file, which is in the working directory."""
    path = Path(f"{name}.yaml")
    first = path.read_text("utf-8").partition("\n")[0]
    overrides = shlex.split(first.removeprefix("# check with:")) if first.startswith("# check with:") else []
    with pytest.raises(ConfigError) as caught:
        Experiment.load(path, overrides)
    return f"{caught.value}\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_experiment_gets_its_message(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BROKEN)
    expected = Path(f"{name}.txt")
    if os.environ.get("UPDATE_MESSAGES"):
        expected.write_text(message(name), "utf-8")
    assert message(name) == expected.read_text("utf-8")


def test_the_corpus_is_large_and_has_no_orphans() -> None:
    assert len(NAMES) >= 70
    assert sorted(path.stem for path in BROKEN.glob("*.txt")) == NAMES


def test_carets_count_terminal_cells() -> None:
    assert cells("宽a") == 3
    span = Span("f", 1, 4, 2, "宽宽 ab")
    shown = Diagnostic("wrong", span).render().splitlines()
    assert shown[-1].index("^") == shown[-2].index("ab") + 2


def test_control_characters_never_reach_the_terminal() -> None:
    shown = Diagnostic("a \x1b[31m b", Span("f", 1, 1, 1, "x\x07\x1b[2J"), "\x9b", ("\u202e",)).render()
    assert all(character.isprintable() for character in shown.replace("\n", ""))


def test_a_long_line_is_cut_around_the_caret() -> None:
    shown = Diagnostic("wrong", Span("f", 1, 901, 3, "a" * 900 + "xyz" + "b" * 900)).render().splitlines()
    assert all(len(line) < 120 for line in shown)
    column = shown[-1].index("^^^")
    assert shown[-2][column : column + 3] == "xyz"


@pytest.mark.parametrize(
    ("word", "known", "near"),
    [
        ("sdg", ["adam", "sgd"], "sgd"), ("ResNet18", ["resnet18"], "resnet18"), ("none", ["cosine", "step"], None),
        ("fashion-mnist", ["fashion_mnist"], "fashion_mnist"),
        ("cosine_annealing", ["cosine", "constant"], "cosine"), ("batch", ["batch_size"], "batch_size"),
        ("", ["x"], None),
    ],
)  # fmt: skip
def test_the_nearest_name_is_suggested(word: str, known: list[str], near: str | None) -> None:
    assert suggest(word, known) == near
