"""`dltrain ask`: claims that are true, false, without effect and undecidable; and those that are wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answers import interrupted, table_of
from evaluating import invoke, measured

from dltrain.evidence.sequential import SequentialTest

BASE = """
data: {data}
model: {{name: mlp, hidden: [8]}}
optimizer: {{lr: {rate}}}
training: {{epochs: 2, batch_size: 32}}
recorders: []
seed: 2
"""
CLAIM = """
claim: "{words}"
base: {base}
change: {{{change}}}
decide: {{metric: {metric}, error: 0.2, difference: 0.001, budget: {{runs: {runs}}}}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With base experiments that learn well, `good.yaml`, and hardly, `slow.yaml`."""
    folder = tmp_path_factory.mktemp("claims")
    for name, rate in (("good", 0.1), ("slow", 0.0001)):
        (folder / f"{name}.yaml").write_text(BASE.format(data=table_of(folder), rate=rate))
    return folder


def write_claim(
    folder: Path, base: str, change: str, metric: str = "validation/loss", runs: int = 12, words: str = "it helps"
) -> Path:
    path = folder / "claim.yaml"
    path.write_text(CLAIM.format(words=words, base=base, change=change, metric=metric, runs=runs))
    return path


def asked(claim: Path, runs: Path) -> tuple[dict[str, Any], Path]:
    done = invoke("ask", claim, "--runs", runs, "--device", "cpu")
    assert done.exit_code == 0, done.output
    page = Path(done.stdout.strip())
    found: dict[str, Any] = json.loads((page.parent / "answer.json").read_text())
    return found, page


@pytest.fixture(scope="module")
def true_claim(folder: Path) -> tuple[dict[str, Any], Path]:
    claim = write_claim(folder, "slow.yaml", "optimizer.lr: 0.1", words="a higher rate helps")
    return asked(claim, folder / "runs")


def test_a_true_claim_is_decided_before_its_budget_is_spent(true_claim: tuple[dict[str, Any], Path]) -> None:
    found, page = true_claim
    assert (found["answer"], found["verdict"], found["metric"]) == ("yes", "better", "validation/loss")
    assert page.parent.parent.name == "slow" and found["cost"]["runs"] < found["cost"]["budget"]
    differences = np.array([pair["difference"] for pair in found["pairs"]])
    look = SequentialTest(0.2, 0.001).look(differences)
    assert look.verdict == "lower", "a loss"
    assert SequentialTest(0.2, 0.001).look(differences[:-1]).verdict == "undecided", "it stops as soon as it can"
    assert found["test"]["p"] == look.p and found["difference"]["mean"] == look.mean
    assert [pair["seed"] for pair in found["pairs"]] == list(range(2, 2 + len(differences)))
    for pair in found["pairs"]:
        for side in ("base", "changed"):
            run = page.parent / side / f"seed-{pair['seed']}"
            assert measured(run, "--split", "validation")["loss"] == pytest.approx(pair[side], rel=1e-6)
    text = page.read_text()
    assert text.startswith("# a higher rate helps\n\nYes, the change is better: validation/loss differs by -")
    assert f"    {found['repeat']}\n" in text


def test_the_examples_that_changed_sides_are_those_of_the_tables(true_claim: tuple[dict[str, Any], Path]) -> None:
    found, page = true_claim
    right: dict[str, dict[str, list[bool]]] = {"base": {}, "changed": {}}
    for side, told in right.items():
        for file in (page.parent / side).glob("seed-*/eval/validation.csv"):
            header, *rows = [line.replace('"cat, wild"', "cat").split(",") for line in file.read_text().splitlines()]
            for row in rows:
                cells = dict(zip(header, row, strict=False))
                told.setdefault(cells["index"], []).append(cells["target"] == cells["prediction"])
    gained = {index for index, each in right["base"].items()
              if np.mean(each) < 0.5 < np.mean(right["changed"][index])}  # fmt: skip
    lost = {index for index, each in right["base"].items() if np.mean(each) > 0.5 > np.mean(right["changed"][index])}
    sides = found["changed_sides"]
    assert (sides["gained"], sides["lost"]) == (len(gained), len(lost)) and gained
    assert {str(row["index"]) for row in sides["examples"]} == gained | lost


def test_its_command_repeats_it(true_claim: tuple[dict[str, Any], Path]) -> None:
    found, page = true_claim
    again, other = asked(Path(found["repeat"].removeprefix("dltrain ask ")), page.parents[2])
    assert other.parent.parent == page.parent.parent and other != page

    def values(of: dict[str, Any]) -> list[tuple[float, float]]:
        return [(pair["base"], pair["changed"]) for pair in of["pairs"]]

    assert values(again) == values(found) and again["test"] == found["test"]


def test_a_false_claim_and_one_without_effect(folder: Path) -> None:
    found, page = asked(write_claim(folder, "good.yaml", "optimizer.lr: 0.0001"), folder / "runs")
    assert (found["answer"], found["verdict"]) == ("no", "worse")
    found, page = asked(write_claim(folder, "good.yaml", "training.log_every: 3"), folder / "runs")
    assert (found["answer"], found["verdict"]) == ("no", "alike") and found["difference"]["mean"] == 0
    assert "No, the sides differ by less than 0.001" in page.read_text()
    assert found["changed_sides"] == {"gained": 0, "lost": 0, "why": "", "examples": []}


def test_an_undecidable_claim_ends_with_its_budget_and_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    claim = write_claim(folder, "good.yaml", "optimizer.lr: 0.099", "validation/accuracy", runs=10)
    found, page = asked(claim, tmp_path)
    assert found["answer"] == "undecided" and found["cost"]["runs"] == 10
    ask_folder = page.parent
    for name in ("answer.json", "answer.md"):
        (ask_folder / name).unlink()
    shutil.rmtree(ask_folder / "changed/seed-6")

    from dltrain.commands import ask

    with interrupted(ask, "train_one"):
        done = invoke("ask", ask_folder)
    assert done.exit_code == 130 and f"to go on: dltrain ask {ask_folder}" in done.stderr, done.output
    done = invoke("ask", ask_folder, "training.epochs=3")
    assert done.exit_code == 2 and "goes on as it is: leave out training.epochs=3" in done.stderr
    done = invoke("ask", ask_folder)
    assert done.exit_code == 0, done.output
    again = json.loads((ask_folder / "answer.json").read_text())
    assert [pair["changed"] for pair in again["pairs"]] == [pair["changed"] for pair in found["pairs"]]


@pytest.mark.parametrize(
    ("old", "new", "message", "line"),
    [
        ("base: good.yaml", "base: god.yaml", "god.yaml", 3),
        ("optimizer.lr: 0.01", "optimizer.rate: 0.01", "rate", 4),
        ("optimizer.lr: 0.01", "optimizer.lr: fast", "lr", 4),
        ("optimizer.lr: 0.01", "optimizer.lr: 0.1", "the change changes nothing", 4),
        ("optimizer.lr: 0.01", "seed: 7", "the seed is no change", 4),
        ("optimizer.lr: 0.01", "data.validation: 0", "needs a validation split", 5),
        ("validation/loss", "validation/rmse", "task `classification` has no metric `validation/rmse`", 5),
        ("runs: 12", "runs: 4", "4 runs cannot decide, whatever they reach", 5),
        ("error: 0.2", "error: 0.7", "error", 5),
        ("decide:", "decision:", "decision", 5),
    ],
)
def test_a_wrong_claim_is_located(folder: Path, tmp_path: Path, old: str, new: str, message: str, line: int) -> None:
    claim = write_claim(folder, "good.yaml", "optimizer.lr: 0.01")
    text = claim.read_text()
    assert old in text
    claim.write_text(text.replace(old, new))
    done = invoke("ask", claim, "--runs", tmp_path)
    assert done.exit_code == 2, done.output
    assert message in done.stderr and f"claim.yaml:{line}:" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_what_is_no_claim_is_said(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "claim.yaml").write_text("- a list\n")
    done = invoke("ask", tmp_path / "claim.yaml")
    assert done.exit_code == 2 and "a claim is a mapping with the keys" in done.stderr
    (tmp_path / "empty").mkdir()
    done = invoke("ask", tmp_path / "empty")
    assert done.exit_code == 2 and "holds no claim" in done.stderr
    done = invoke("ask", tmp_path / "absent.yaml")
    assert done.exit_code == 2 and "absent.yaml" in done.stderr
