"""What Tab offers, asked as a shell asks."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dltrain.cli import app


def offered(line: str, word: str) -> list[str]:
    """What bash is offered for the last word of a line."""
    words = f"{line} {word}"
    environment = {
        "_DLTRAIN_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    result = CliRunner().invoke(app, [], prog_name="dltrain", env=environment)
    return result.stdout.split()


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("optimizer.l", ["optimizer.lr=", "optimizer.lookahead."]),
        ("optimizer=adam", ["optimizer=adam", "optimizer=adamw"]),
        ("model=resnet1", ["model=resnet18", "model=resnet101"]),
        ("training.det", ["training.deterministic="]),
        ("training.deterministic=", ["training.deterministic=true", "training.deterministic=false"]),
        ("training.early_stopping.p", ["training.early_stopping.patience="]),
        ("sweep.pruner=", ["sweep.pruner=successive_halving", "sweep.pruner=null"]),
    ],
)
def test_keys_and_their_values_are_offered(word: str, expected: list[str]) -> None:
    found = offered("dltrain fit x.yaml", word)
    assert set(expected) <= set(found) and all(text.startswith(word) for text in found)


def test_nothing_is_offered_where_there_is_no_key() -> None:
    assert offered("dltrain fit x.yaml", "nonsense.") == []


def test_experiments_and_runs_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/a/001").mkdir(parents=True)
    for name in ("digits.yaml", "digits.csv", "diagram.png", ".hidden.yaml"):
        (tmp_path / name).touch()
    assert offered("dltrain fit", "di") == ["digits.yaml"]
    for command in (
        "eval",
        "eval runs/x",
        "compare",
        "compare runs/x",
        "report",
        "explain",
        "predict runs/x y.png --with",
    ):
        assert offered(f"dltrain {command}", "runs/a/") == ["runs/a/001/"], command
    for command in ("ask", "ablate", "find lr", "sweep", "check"):
        assert offered(f"dltrain {command}", "di") == ["digits.yaml"], command
    assert offered("dltrain eval", "absent/") == []
