"""`dltrain compare`: what differs between runs, and what is said where nothing can be."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answers import fit_task, write_table
from evaluating import invoke, measured

from dltrain.evidence.comparing import compare, scores
from dltrain.evidence.examples import ExampleTable, read_examples
from dltrain.evidence.intervals import wilson
from dltrain.evidence.paired import holm, mcnemar
from dltrain.tasks.metrics import Metric
from dltrain.tasks.outcomes import ClassOutcomes, NumberOutcomes, Outcomes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table, and three classifiers of it: two seeds, and one that has hardly learned."""
    folder = tmp_path_factory.mktemp("rows")
    for overrides in (["seed=0"], ["seed=1"], ["optimizer.lr=0.00001"]):
        fit_task(folder, "classification", "training.epochs=10", *overrides)
    return folder


@pytest.fixture
def runs(folder: Path, tmp_path: Path) -> list[Path]:
    """Copies of them, free to be damaged."""
    return [Path(shutil.copytree(folder / f"classification/00{n}", tmp_path / f"00{n}")) for n in (1, 2, 3)]


def found(*arguments: Any) -> dict[str, Any]:
    done = invoke("compare", *arguments, "--json")
    assert done.exit_code == 0, done.output
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def right(run: Path, split: str = "validation") -> np.ndarray:
    with (run / f"eval/{split}.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["index"]))
    return np.array([row["target"] == row["prediction"] for row in rows])


def test_two_runs_are_compared_on_the_same_examples(runs: list[Path]) -> None:
    told = found(runs[0], runs[1])
    one, other = map(right, runs[:2])
    test = mcnemar(one, other)
    [pair] = told["comparisons"]
    assert (pair["only_first_right"], pair["only_second_right"]) == (test.first_alone, test.second_alone)
    assert pair["p"] == pair["p_adjusted"] == pytest.approx(test.p) and pair["verdict"] == "undecided"
    apart = abs(test.first_alone - test.second_alone)
    assert f"{apart} of {len(one)} rows apart: undecided (p = " in pair["sentence"]
    assert told["split"] == "validation" and told["settings"] == {"seed": [0, 1]}
    for run, about, seen in zip(runs[:2], told["runs"], (one, other), strict=True):
        accuracy, interval = about["metrics"]["accuracy"], wilson(int(seen.sum()), len(seen))
        assert accuracy == {
            "value": seen.mean(), "low": interval.low, "high": interval.high, "method": "wilson"
        }  # fmt: skip
        assert about["metrics"]["loss"]["value"] == pytest.approx(
            measured(run, "--split", "validation")["loss"], rel=1e-6
        )
    difference = pair["differences"]["accuracy"]
    assert difference["value"] == pytest.approx(other.mean() - one.mean(), abs=1e-12)
    assert difference["low"] <= difference["value"] <= difference["high"] and difference["p"] == pair["p"]


def test_what_was_measured_is_not_measured_again(runs: list[Path]) -> None:
    first = invoke("compare", *runs[:2])
    assert first.stderr.count("measuring ") == 2, first.stderr
    again = invoke("compare", *runs[:2])
    assert "measuring" not in again.stderr and again.stdout == first.stdout
    later = (runs[0] / "eval/validation.csv").stat().st_mtime + 10
    os.utime(runs[0] / "checkpoints/best.pt", (later, later))
    third = invoke("compare", *runs[:2])
    assert third.stderr.count("measuring ") == 1, "its best checkpoint is a later one"
    assert third.stdout == first.stdout


def test_several_are_compared_with_the_first(runs: list[Path]) -> None:
    told = found(*runs, "--split", "test")
    p_values = [mcnemar(right(runs[0], "test"), right(run, "test")).p for run in runs[1:]]
    assert [pair["p_adjusted"] for pair in told["comparisons"]] == pytest.approx(holm(p_values))
    assert [pair["verdict"] for pair in told["comparisons"]] == ["undecided", "worse"]
    assert told["settings"] == {"seed": [0, 1, 0], "optimizer.lr": [0.1, 0.1, 1e-5]}
    text = invoke("compare", *runs, "--split", "test").stdout
    assert "C is worse (p" in text and "p is adjusted for 2 comparisons (Holm)." in text
    assert re.search(r"^optimizer\.lr +0\.1 +0\.1 +1e-05$", text, re.MULTILINE)
    assert "whether the settings differ takes several seeds of each" in text


def test_a_table_for_a_paper(runs: list[Path]) -> None:
    done = invoke("compare", *runs, "--markdown")
    lines = done.stdout.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[:5]]
    assert cells[0] == ["run", "accuracy", "loss", "difference in accuracy", "test"]
    assert len({len(row) for row in cells}) == 1 and set(cells[1]) == {"---"}
    told = found(*runs)
    for row, about in zip(cells[2:], told["runs"], strict=True):
        accuracy = about["metrics"]["accuracy"]
        assert row[0] == f"`{about['path']}`"
        assert row[1] == f"{accuracy['value']:.4f} ({accuracy['low']:.4f} to {accuracy['high']:.4f})"
    assert cells[2][3:] == ["", ""] and cells[4][4].startswith("p ")
    assert any(line.startswith("C alone is right on") for line in lines)


def test_numbers_are_compared_by_a_paired_bootstrap(folder: Path) -> None:
    good, bad = (fit_task(folder, "regression", f"optimizer.lr={lr}") for lr in (0.1, 0.0001))
    told = found(good, bad, "--split", "test")
    [pair] = told["comparisons"]
    results = [measured(run) for run in (good, bad)]
    for name in ("rmse", "loss", "mae"):
        gap = results[1][name] - results[0][name]
        assert pair["differences"][name]["value"] == pytest.approx(gap, rel=1e-5) and gap > 0
    assert pair["metric"] == "rmse" and pair["verdict"] == "worse" and pair["only_first_right"] is None
    assert pair["p"] == pair["differences"]["rmse"]["p"] < 0.05
    assert re.match(
        r"rmse differs by \+\S+ \(\+\S+ to \+\S+\): B is worse \(p = \S+, paired bootstrap\)", pair["sentence"]
    )
    tables = [read_examples(run / "eval/test.csv", NumberOutcomes).losses for run in (good, bad)]
    assert pair["differences"]["loss"]["low"] < (tables[1] - tables[0]).mean() < pair["differences"]["loss"]["high"]


def test_a_run_against_itself(runs: list[Path]) -> None:
    [pair] = found(runs[0], runs[0])["comparisons"]
    assert pair["p"] == 1 and "A and B are right on the same" in pair["sentence"]
    assert "nothing differs in their settings" in invoke("compare", runs[0], runs[0]).stdout
    assert set(pair["differences"]["loss"].values()) == {0, 1}


def test_a_checkpoint_is_as_good_as_a_run(runs: list[Path]) -> None:
    told = found(runs[0], runs[0] / "checkpoints/last.pt")
    assert [about["checkpoint"] for about in told["runs"]] == ["best.pt", "last.pt"]
    assert told["comparisons"][0]["paired"] and told["settings"] == {}


def test_other_examples_are_not_paired(folder: Path, runs: list[Path]) -> None:
    other = fit_task(folder, "classification", "data.validation=0.1", "training.epochs=10", run="other")
    done = invoke("compare", runs[0], other)
    assert done.exit_code == 0 and "A and B were measured on other examples" in done.stdout
    assert found(runs[0], other, "--split", "test")["comparisons"][0]["paired"], "they share the test split"
    [pair] = found(runs[0], other)["comparisons"]
    assert pair == {"first": str(runs[0]), "second": str(other), "paired": False, "why": pair["why"]}
    assert "there is no paired test" in pair["why"]
    assert "difference in" not in invoke("compare", runs[0], other, "--markdown").stdout
    mixed = found(runs[0], other, runs[1])["comparisons"]
    assert [pair["paired"] for pair in mixed] == [False, True] and mixed[1]["p"] == mixed[1]["p_adjusted"]
    write_table(folder / "more.csv", rows=260)
    other = fit_task(folder, "classification", f"data.path={folder / 'more.csv'}", run="more")
    assert "the data or the splits of A and B are different ones (2-" in invoke("compare", runs[0], other).stdout


def test_what_cannot_be_compared_is_refused(folder: Path, runs: list[Path]) -> None:
    def refused(*arguments: Any) -> str:
        done = invoke("compare", *arguments)
        assert done.exit_code == 2 and done.stdout == "", done.output
        return done.stderr

    assert "compare takes two runs or more" in refused(runs[0])
    assert "--json or --markdown, not both" in refused(*runs, "--json", "--markdown")
    assert "there is no run or checkpoint at" in refused(runs[0], runs[0] / "nothing")
    assert "different tasks, and no metric in common" in refused(runs[0], fit_task(folder, "regression"))
    without = fit_task(folder, "classification", "data.validation=0", run="without")
    assert "no validation split; use --split train" in refused(without, without)
    measured(runs[0], "--split", "validation")
    file = runs[0] / "eval/validation.csv"
    text = file.read_text()
    file.write_text(text.replace("bee", "dog", 1))
    assert "does not hold what dltrain writes there" in refused(*runs)
    lines = text.splitlines()
    for wrong in (lines[:-1], [*lines[:-1], lines[-1].replace(lines[-1].split(",")[-4], "77")]):
        file.write_text("\n".join(wrong) + "\n")
        assert re.search("does not count|is not the table of .*validation.json: measure again", refused(*runs))


def class_table(right: list[bool], losses: list[float]) -> ExampleTable:
    target = np.zeros(len(right), np.int64)
    chances = np.full((len(right), 2), 0.5, np.float32)
    outcomes = ClassOutcomes(["a", "b"], target, np.where(right, 0, 1), chances)
    return ExampleTable(np.arange(len(right)), {}, np.array(losses), outcomes)


LOSS, ACCURACY = Metric("loss", "min"), Metric("accuracy", "max", tie_break="loss")


def test_the_verdict_follows_the_direction_of_the_metric() -> None:
    low, high = ExampleTable(np.arange(30), {}, np.linspace(0, 1, 30), Outcomes()), None
    high = ExampleTable(np.arange(30), {}, low.losses + 0.5, Outcomes())
    for first, second, verdict in ((low, high, "worse"), (high, low, "better"), (low, low, "undecided")):
        found = compare(first, second, [LOSS])
        assert found.verdict(found.p) == verdict
    best, worst = class_table([True] * 30, [0.1] * 30), class_table([True] * 10 + [False] * 20, [0.1] * 30)
    found = compare(worst, best, [ACCURACY, LOSS])
    assert found.verdict(found.p) == "better" and found.p == pytest.approx(2 / 2**20)
    assert found.verdict(0.3) == "undecided", "as it is adjusted"
    apart = "20 of 30 images apart: B is better (p < 0.0001, exact McNemar test)"
    assert found.sentence("A", "B", "images", found.p) == f"B alone is right on 20 images, A alone on 0. {apart}"
    with pytest.raises(ValueError, match="different examples"):
        compare(best, best.at(np.arange(5)), [ACCURACY, LOSS])


def test_losses_that_are_no_numbers_decide_nothing() -> None:
    table = ExampleTable(np.arange(4), {}, np.array([0.1, np.nan, 0.2, 0.3]), Outcomes())
    found = compare(table, table, [LOSS])
    assert np.isnan(found.p) and found.verdict(found.p) == "undecided"
    assert np.isnan(scores(table, [LOSS])["loss"].interval.low)
