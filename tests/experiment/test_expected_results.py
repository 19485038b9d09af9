"""What the comments of shipped experiments promise. Each is trained as it stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY
from typer.testing import CliRunner

from dltrain import Experiment
from dltrain.cli import app
from dltrain.runs import checkpoints

pytestmark = pytest.mark.slow
TABLES = REPOSITORY / "experiments" / "tables"


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.stdout


def measured(path: Path, *overrides: str, split: str = "test") -> tuple[dict[str, Any], Path]:
    """What `eval` says of a split after the training, and the run."""
    run = Path(invoke("fit", path, *overrides, "--device", "cpu").strip())
    return json.loads(invoke("eval", run, "--split", split, "--json", "--device", "cpu")), run


def rows_of(path: Path, *overrides: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Inputs (N, D) and targets (N, ...) of the training and the test split, as the network gets them."""
    experiment = Experiment.load(path, overrides)
    splits = experiment.load_data()
    assert splits.test is not None
    encoding = experiment.data.preprocess(splits, (), None).train
    return {
        name: (source.load(np.arange(len(source)), encoding)[0].double().numpy(), source.targets)
        for name, source in (("train", splits.train), ("test", splits.test))
    }


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_linear_regression_on_diabetes_is_least_squares() -> None:
    found, run = measured(TABLES / "diabetes.yaml")
    (x, y), (x_test, y_test) = rows_of(TABLES / "diabetes.yaml").values()
    mean, std = y.mean(0), y.std(0)
    solution = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), (y - mean) / std, rcond=None)[0]
    weight, bias = (
        tensor.double().numpy() for tensor in checkpoints.load(run / "checkpoints/last.pt")["model"].values()
    )
    assert weight == pytest.approx(solution[:-1].T, rel=1e-3, abs=1e-3 * np.abs(solution).max())
    predicted = (x_test @ solution[:-1] + solution[-1]) * std + mean
    assert found["rmse"] == pytest.approx(np.sqrt(np.square(predicted - y_test).mean()), rel=1e-3)
    assert bias == pytest.approx(solution[-1], abs=1e-3)


def test_logistic_regression_on_breast_cancer_is_as_good_as_that_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    found, _ = measured(TABLES / "breast_cancer.yaml")
    (x, y), (x_test, y_test) = rows_of(TABLES / "breast_cancer.yaml").values()
    other = LogisticRegression(C=1 / (2 * 0.001 * len(y)), max_iter=5000).fit(x, y)
    assert abs(found["accuracy"] - other.score(x_test, y_test)) <= 0.005


def test_the_perceptron_learns_and_but_never_xor_and_an_mlp_does() -> None:
    rows = [f"data.path={TABLES}/and.csv"]
    found, _ = measured(TABLES / "and.yaml", *rows, split="train")
    assert found["accuracy"] == 1
    xor = [f"data.path={TABLES}/xor.csv", "data.target=either"]
    assert measured(TABLES / "and.yaml", *xor, "training.epochs=60", split="train")[0]["accuracy"] < 1
    assert measured(TABLES / "xor.yaml", f"data.path={TABLES}/xor.csv", split="train")[0]["accuracy"] == 1


@pytest.mark.parametrize("name", ["iris", "wine"])
def test_a_multilayer_perceptron_tells_flowers_and_wines_apart(name: str) -> None:
    assert measured(TABLES / f"{name}.yaml")[0]["accuracy"] >= 0.95


def test_house_prices_are_told_as_well_as_by_scikit_learn(shared_data: Path) -> None:
    from sklearn.neural_network import MLPRegressor

    file = f"data.path={shared_data / 'tabular' / 'california-housing.csv.gz'}"
    found, _ = measured(TABLES / "california_housing.yaml", file)
    (x, y), (x_test, y_test) = rows_of(TABLES / "california_housing.yaml", file).values()
    mean, std = y.mean(), y.std()
    other = MLPRegressor(hidden_layer_sizes=(64, 64), random_state=0).fit(x, (y[:, 0] - mean) / std)
    rmse = np.sqrt(np.square(other.predict(x_test) * std + mean - y_test[:, 0]).mean())
    assert found["rmse"] <= 1.05 * rmse and found["rmse"] < 54_000
