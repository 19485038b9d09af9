"""A run that was made before the files of the package moved resumes, evaluates and predicts as it did then.

`before_rooms` was interrupted after three of six epochs, at commit d4b93c9. `finished.csv` is the table that the same
version wrote when it resumed the run.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from training import table
from typer.testing import CliRunner, Result

from dltrain.cli import app

EARLIER = Path(__file__).parent / "before_rooms"
TIMES = ("seconds/", "throughput/")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy of the run, to be continued."""
    return Path(shutil.copytree(EARLIER, tmp_path / "run"))


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.filterwarnings("ignore")  # of other versions of torch, which say so
def test_it_resumes_evaluates_and_predicts(run: Path, tmp_path: Path) -> None:
    result = invoke("resume", run)
    assert result.exit_code == 0, result.stderr
    with (EARLIER / "finished.csv").open() as file:
        expected = list(csv.DictReader(file))
    rows = table(run)
    assert len(rows) == len(expected) == 6
    for row, before in zip(rows, expected, strict=True):
        for key, value in before.items():
            if value and not key.startswith(TIMES):
                assert float(row[key]) == pytest.approx(float(value), rel=1e-2), key  # another machine's last digits

    measured = json.loads(invoke("eval", run, "--json").stdout)
    assert measured["examples"] == 359 and measured["accuracy"] == pytest.approx(0.28134, abs=0.01)
    assert measured["loss"] == pytest.approx(2.04097, rel=1e-2)

    values = load_digits().images[0]
    Image.fromarray((values / 16 * 255).round().astype(np.uint8)).save(tmp_path / "zero.png")
    predicted = invoke("predict", run, tmp_path / "zero.png", "--format", "jsonl")
    assert predicted.exit_code == 0, predicted.stderr
    probabilities = json.loads(predicted.stdout.splitlines()[0])
    assert sum(probabilities["probabilities"].values()) == pytest.approx(1.0, abs=1e-4)
