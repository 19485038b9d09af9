"""`dltrain compare` of folders: several seeds of each setting, in pairs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answers import fit_task, write_table
from evaluating import invoke, measured
from scipy import stats

from dltrain.evidence.paired import sign_flip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of three regressions each: `good`, `worse` with the same seeds, `other` with two of them."""
    folder = tmp_path_factory.mktemp("rows")
    for name, rate, seeds in (("good", 0.1, (0, 1, 2)), ("worse", 0.0001, (0, 1, 2)), ("other", 0.09, (2, 5, 1))):
        for seed in seeds:
            fit_task(folder, "regression", f"optimizer.lr={rate}", f"seed={seed}", "training.epochs=6", run=name)
    return folder


def found(*arguments: Any) -> dict[str, Any]:
    done = invoke("compare", *arguments, "--json")
    assert done.exit_code == 0, done.output
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_settings_are_compared_over_their_seeds(folder: Path) -> None:
    told = found(folder / "good", folder / "worse", "--split", "test")
    values = [[measured(folder / name / f"00{n}")["rmse"] for n in (1, 2, 3)] for name in ("good", "worse")]
    [pair] = told["comparisons"]
    expected = stats.ttest_rel(values[1], values[0])
    assert pair["p"] == pytest.approx(expected.pvalue, rel=1e-6) and pair["seeds"] == [0, 1, 2]
    gap = np.subtract(values[1], values[0])
    difference, interval = pair["differences"]["rmse"], expected.confidence_interval(0.95)
    assert (difference["low"], difference["value"], difference["high"]) == pytest.approx(
        (interval.low, gap.mean(), interval.high), rel=1e-6
    )
    assert pair["p_sign_flip"] == pytest.approx(sign_flip(gap.tolist())) == pytest.approx(0.25)
    decided = "worse" if expected.pvalue < 0.05 else "undecided"
    assert pair["verdict"] == decided and pair["metric"] == "rmse" and difference["value"] > 0
    assert told["settings"] == {"optimizer.lr": [0.1, 0.0001]}, "the seed is none"
    group = told["groups"][0]
    assert group["seeds"] == [0, 1, 2] and group["metrics"]["rmse"]["mean"] == pytest.approx(np.mean(values[0]))
    assert group["metrics"]["rmse"]["deviation"] == pytest.approx(np.std(values[0], ddof=1))


def test_it_is_said_in_words_and_for_a_paper(folder: Path) -> None:
    text = invoke("compare", folder / "good", folder / "worse").stdout
    expected = r"Over 3 seeds rmse differs by \+\S+ \(\S+ to \+\S+\): B is worse \(p \S \S+, paired t test\)\."
    assert re.search(expected, text)
    assert "seeds 0, 1, 2" in text and "These are single trainings" not in text
    lines = invoke("compare", folder / "good", folder / "worse", "--markdown").stdout.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[:4]]
    assert cells[0] == ["runs", "seeds", "rmse", "loss", "mae", "r2", "difference in rmse", "test"]
    assert cells[2][:2] == [f"`{folder / 'good'}`", "3"] and cells[2][6:] == ["", ""] and cells[3][7].startswith("p ")


def test_only_seeds_that_both_have_are_pairs(folder: Path) -> None:
    told = found(folder / "good", folder / "other", folder / "worse")
    assert [pair["seeds"] for pair in told["comparisons"]] == [[1, 2], [0, 1, 2]]
    assert told["comparisons"][1]["p_adjusted"] >= told["comparisons"][1]["p"]
    text = invoke("compare", *(folder / name for name in ("good", "other", "worse"))).stdout
    assert "p is adjusted for 2 comparisons (Holm)" in text


def test_what_cannot_be_paired_is_said(folder: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(folder / "other/001", alone / "001")
    [pair] = found(folder / "good", alone)["comparisons"]
    assert not pair["paired"] and pair["why"] == "A and B have too few seeds in common for a paired test: 1"
    assert "too few seeds in common" in invoke("compare", folder / "good", alone, "--markdown").stdout
    shutil.copytree(folder / "good/001", alone / "002")
    done = invoke("compare", folder / "good", alone)
    assert done.exit_code == 2 and "differ in `optimizer.lr`, such as" in done.stderr
    done = invoke("compare", folder / "good")
    assert done.exit_code == 2 and "two folders of runs or more" in done.stderr
    done = invoke("compare", folder / "good", folder / "worse/001")
    assert done.exit_code == 2 and "is not a run: it has no experiment.yaml; did you mean" in done.stderr
    write_table(folder / "more.csv", rows=260)
    for seed in (0, 1):
        fit_task(folder, "regression", f"data.path={folder / 'more.csv'}", f"seed={seed}", run="more")
    [pair] = found(folder / "good", folder / "more")["comparisons"]
    assert pair["why"] == "the data or the splits of A and B are different ones: there is no paired test"
    classes = fit_task(folder, "classification").parent
    done = invoke("compare", folder / "good", classes)
    assert done.exit_code == 2 and "different tasks, and no metric in common" in done.stderr
