"""`inputs` of an .npz file: rows of numbers with labels or targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dltrain.cli import app
from dltrain.config import ConfigError
from dltrain.data.datasets import Arrays
from dltrain.data.types import Vector
from dltrain.testing.datasets import parts

RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(3, 2, (60, 4)).astype(np.float32)
WEIGHTS = np.array([1.0, -2.0, 0.5, 0.0])
LABELS = (INPUTS @ WEIGHTS > 0).astype(int)


def save(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


def test_rows_are_scaled_by_the_training_part_as_columns_of_a_table_are(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npz", inputs=INPUTS, labels=LABELS, features=np.array(list("abcd")))
    section = Arrays(path=path)
    splits = section.load()
    assert section.inputs is Vector
    assert {name: len(part) for name, part in parts(splits).items()} == {"train": 44, "validation": 4, "test": 12}
    preprocessing = section.preprocess(splits, (), None)
    train = splits.train.load(np.arange(44), preprocessing.train)[0].numpy()
    assert preprocessing.shape == Vector(4) and preprocessing.evaluation.names == ["a", "b", "c", "d"]
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(train.std(0), 1, atol=1e-6)
    assert splits.test is not None and splits.test.names()[0].startswith("row ")


def test_rows_train_and_predict_tables_with_these_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    numbers = INPUTS @ WEIGHTS
    save(tmp_path / "x.npz", inputs=INPUTS, targets=numbers, test_inputs=INPUTS[:9] + 1, test_targets=numbers[:9])
    (tmp_path / "x.yaml").write_text(
        "data: {name: arrays, path: x.npz}\nmodel: {name: mlp, hidden: []}\noptimizer: {name: adam, lr: 0.05}\n"
        "training: {epochs: 15, batch_size: 16}\n"
    )
    (tmp_path / "new.csv").write_text("\n".join(",".join(map(str, row)) for row in INPUTS[:5]))  # no header
    run = CliRunner().invoke
    fitted = run(app, ["fit", "x.yaml"])
    assert fitted.exit_code == 0, fitted.stderr
    planned = run(app, ["plan", "x.yaml"]).stdout
    assert "4 numbers" in planned and "multiply-adds a row" in planned and "16 rows a step" in planned
    assert " rows/s" in fitted.stderr and "image" not in fitted.stderr + planned
    assert "examples             9" in run(app, ["eval", "runs/x/001"]).stdout
    answer = run(app, ["predict", "runs/x/001", "new.csv"])
    assert answer.exit_code == 0, answer.stderr
    predicted = [float(line.split(",")[-1]) for line in answer.stdout.splitlines()[1:]]
    np.testing.assert_allclose(predicted, numbers[:5], atol=1.0)


BAD = INPUTS.copy()
BAD[3, 1] = np.nan
BAD[7, 0] = np.inf


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": BAD, "labels": LABELS}, "`inputs[3, 1]`, `column_2`, is nan"),
        ({"inputs": BAD[4:], "labels": LABELS[4:], "features": np.array(list("abcd"))}, "`inputs[3, 0]`, `a`, is inf"),
        ({"inputs": INPUTS, "labels": LABELS, "features": np.array(["a", "b"])}, "`features` are 2 names"),
        ({"inputs": INPUTS, "labels": LABELS[:9]}, "one label a row"),
        ({"inputs": INPUTS, "targets": LABELS[:9] * 0.5}, "a row for each row of `inputs`"),
        ({"inputs": INPUTS[:, 0], "labels": LABELS}, "rows of numbers, (N, D), not of shape (60,)"),
        ({"inputs": INPUTS.astype(str), "labels": LABELS}, "`inputs` must be numbers"),
        ({"inputs": INPUTS}, "it has no `labels`"),
        ({"inputs": INPUTS, "images": INPUTS, "labels": LABELS}, "it has `inputs` and `images`"),
        ({"inputs": INPUTS, "labels": LABELS, "test_images": INPUTS}, "it has `inputs` and `test_images`"),
        (
            {"inputs": INPUTS, "labels": LABELS, "test_inputs": INPUTS[:, :3], "test_labels": LABELS},
            "`test_inputs` are",
        ),
    ],
)
def test_what_is_unfit_is_located(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Arrays(path=save(tmp_path / "x.npz", **arrays)).load()
    assert message in str(error.value)


def test_images_that_are_rows_are_told_so(tmp_path: Path) -> None:
    for images in (INPUTS, np.zeros((60, 4), np.uint8)):
        with pytest.raises(ConfigError) as error:
            Arrays(path=save(tmp_path / "x.npz", images=images, labels=LABELS)).load()
        assert "rows of numbers are called `inputs`" in str(error.value.diagnostics[0].notes)


def test_options_of_images_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npz", inputs=INPUTS, labels=LABELS)
    for options, message in (({"size": 8}, "`size` does nothing"), ({"scaling": "featurewise_min_max"}, "of pictures")):
        with pytest.raises(ValueError, match=message):
            Arrays.model_validate({"path": path, **options})
