"""`dltrain predict --truth`: the rows that `eval` keeps of a split, for files whose answer is known."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from answers import LABELS, fit_task
from evaluating import invoke, measured
from training import write_folder

from dltrain import Experiment
from dltrain.evidence.examples import read_examples

TRUTHS = {
    "classification": ["kind"], "binary_classification": ["yes"], "multilabel": LABELS, "regression": ["size"],
    "several numbers": ["weight", "size"],
}  # fmt: skip
"""Columns by what is learned; of several numbers in another order."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


def asked(columns: list[str]) -> list[str]:
    return [text for column in columns for text in ("--truth", column)]


@pytest.mark.parametrize("name", TRUTHS)
def test_rows_are_those_of_eval(name: str, folder: Path, tmp_path: Path) -> None:
    run = fit_task(folder, name)
    measured(run)
    done = invoke("predict", run, folder / "rows.csv", *asked(TRUTHS[name]), "--batch-size", "50")
    assert done.exit_code == 0, done.output
    found = {(row["path"], row["row"]): row for row in csv.DictReader(io.StringIO(done.stdout))}
    assert len(found) == 240 and "is not known" not in done.stderr
    with (run / "eval/test.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    for row in expected:
        told = found[row["path"], row["row"]]
        assert [key for key in row if key != "index"] == list(told)
        for key in told:
            if key in ("target", "prediction") and not name.endswith(("regression", "numbers")):
                assert told[key] == row[key]
            elif key != "path":
                assert float(told[key]) == pytest.approx(float(row[key]), rel=1e-5, abs=1e-6), key
    (tmp_path / "told.csv").write_text(done.stdout)
    outcomes = Experiment.load(run / "experiment.yaml").resolved_task.outcomes()
    table = read_examples(tmp_path / "told.csv", outcomes)
    lines = invoke("predict", run, folder / "rows.csv", *asked(TRUTHS[name]), "--format", "jsonl").stdout.splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert np.allclose(table.losses, losses, rtol=1e-5)


def test_what_is_not_known_is_empty_and_counted(folder: Path, tmp_path: Path) -> None:
    run = fit_task(folder, "classification")
    header, *lines = (folder / "rows.csv").read_text().splitlines()
    lines[1] = lines[1].replace('"ant"', "").replace('"bee"', "").replace('"cat, wild"', "")
    (tmp_path / "some.csv").write_text("\n".join([header, *lines[:5]]) + "\n")
    done = invoke("predict", run, tmp_path / "some.csv", "--truth", "kind")
    assert done.exit_code == 0 and "the truth of 1 of 5 examples is not known" in done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert (
        [bool(row["target"]) for row in rows] == [bool(row["loss"]) for row in rows] == [True, False, True, True, True]
    )
    assert all(row["prediction"] for row in rows)
    (tmp_path / "told.csv").write_text(done.stdout)
    outcomes = Experiment.load(run / "experiment.yaml").resolved_task.outcomes()
    assert len(read_examples(tmp_path / "told.csv", outcomes)) == 4


def test_folders_name_the_truth(tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos")
    (tmp_path / "e.yaml").write_text(f"data: {{name: image_folder, root: {photos}, size: 8}}\n"
                                     "model: {name: mlp, hidden: []}\n"
                                     "training: {epochs: 1, batch_size: 16}\n")  # fmt: skip
    runs = [
        invoke("fit", tmp_path / "e.yaml", f"seed={seed}", "--runs", tmp_path / "runs").stdout.strip()
        for seed in (0, 1)
    ]
    measured(runs[0])
    shutil.copytree(photos / "dark", photos / "unnamed")
    for more in ([], ["--with", runs[1]]):
        done = invoke("predict", runs[0], photos, "--truth", "folder", *more)
        assert done.exit_code == 0, done.output
        assert "the truth of 20 of 60 examples is not known" in done.stderr
        told = {row["path"]: row for row in csv.DictReader(io.StringIO(done.stdout))}
        assert {Path(path).parent.name for path, row in told.items() if not row["loss"]} == {"unnamed"}
        for row in told.values():
            if row["loss"]:
                chance = float(row[f"probability of {row['target']}"])
                assert float(row["loss"]) == pytest.approx(-np.log(chance), rel=1e-4)
        with (Path(runs[0]) / "eval/test.csv").open(newline="") as file:
            same = [told[row["path"]]["loss"] == pytest.approx(row["loss"]) for row in csv.DictReader(file)]
        assert all(same) == (not more), "of several the loss is that of their mean"


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("classification", ["folder"], "the network takes rows of tables: name a column"),
        ("classification", ["knid"], "no column `knid`"),
        ("classification", ["yes"], "`no` in column `yes` of .* is no class of the network, which knows `ant`, `bee`"),
        ("classification", ["kind", "yes"], "is to be given 1 times, with the columns of the class"),
        ("several numbers", ["size"], "is to be given 2 times, with the columns of size, weight"),
        ("regression", ["kind"], "the target column `kind` holds words"),
        ("reconstruction", ["size"], "is judged by the inputs themselves: leave --truth out"),
    ],
)
def test_a_wrong_column_is_said(name: str, columns: list[str], message: str, folder: Path) -> None:
    import re

    done = invoke("predict", fit_task(folder, name), folder / "rows.csv", *asked(columns))
    assert done.exit_code == 2 and re.search(message, done.stderr), done.output


def test_numbers_are_in_no_folder(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, targets=images.mean((1, 2)))
    (tmp_path / "e.yaml").write_text(f"data: {{name: arrays, path: {tmp_path / 'a.npz'}}}\n"
                                     "model: {name: mlp, hidden: []}\n"
                                     "training: {epochs: 1, batch_size: 16}\n")  # fmt: skip
    run = invoke("fit", tmp_path / "e.yaml", "--runs", tmp_path / "runs").stdout.strip()
    photos = write_folder(tmp_path / "photos", 1)
    done = invoke("predict", run, photos, "--truth", "folder")
    assert done.exit_code == 2 and "a folder is a class, and the network has learned numbers" in done.stderr
    done = invoke("predict", run, photos, "--truth", "size")
    assert done.exit_code == 2 and "the network takes image files: write --truth folder" in done.stderr
