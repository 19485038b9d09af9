"""`dltrain init` of tables: what it takes columns for, and that what it writes is right and trains."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from dltrain.cli import app
from dltrain.experiment.experiment import Experiment

SHARED = Path(__file__).parents[3] / "shared" / "data" / "tabular"
pytest.importorskip("polars")


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def written(path: Path, *options: str) -> tuple[dict[str, Any], str, Experiment]:
    """The data section that init writes for `path`, the whole text, and the experiment."""
    target = path.parent / f"{path.name}.yaml"
    result = invoke("init", path, "--output", target, "--no-time", *options)
    assert result.exit_code == 0, result.stderr
    assert invoke("check", target).exit_code == 0
    experiment = Experiment.load(target)
    return experiment.data.model_dump(exclude_defaults=True), target.read_text(), experiment


def refused(path: Path, *options: str) -> str:
    """What is said of data that nothing can be learned from. No file is written."""
    target = path.parent / "x.yaml"
    result = invoke("init", path, "--output", target, "--no-time", *options)
    assert result.exit_code == 2 and not target.exists()
    return result.stderr


def people(count: int = 120) -> dict[str, list[Any]]:
    """Columns of every sort, of which `churn` is to be learned."""
    random = np.random.default_rng(0)
    age = random.integers(18, 80, count)
    churn = random.random(count) < 0.2 + 0.6 * (age > 50) * (random.random(count) < 0.9)
    return {
        "row": list(range(count)),
        "customer_id": random.integers(1000, 1040, count).tolist(),
        "name": [f"person {random.integers(10**6)} of here" for _ in range(count)],
        "age": ["" if place % 10 == 0 else value for place, value in enumerate(age.tolist())],
        "churn": np.where(churn, "yes", "no").tolist(),
        "zip": random.choice([11111, 22222, 33333], count).tolist(),
        "weight": random.normal(70, 9, count).round(3).tolist(),
        "country": ["here"] * count,
        "left_us": churn.astype(int).tolist(),
        "colour": random.choice(["red", "green"], count).tolist(),
    }


def save(path: Path, columns: dict[str, list[Any]], header: bool = True) -> Path:
    lines = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    text = "\n".join([",".join(columns), *lines] if header else lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_columns_are_chosen_with_a_reason_each(tmp_path: Path) -> None:
    data, text, experiment = written(save(tmp_path / "people.csv", people()))
    assert data["target"] == "churn" and data["missing"] == "indicator"
    assert data["features"] == ["age", "zip", "weight", "colour"]
    reasons = {
        "row": "numbers the rows", "name": "a name or a text: 120", "country": "the same in every row",
        "left_us": "gives `churn` away", "customer_id": "by its name an id",
    }  # fmt: skip
    for column, reason in reasons.items():
        assert any(line.startswith(f"# Left out is {column}: ") and reason in line for line in text.splitlines())
    assert "# by its name; another one: dltrain init" in text and "--target COLUMN" in text
    assert "age is empty in 12 of the rows" in text
    assert "# categories: [zip]" in text and "# group: customer_id" in text
    assert experiment.resolved_task.name == "binary_classification" and experiment.model.name == "mlp"
    assert (experiment.sweep is not None) and "120 rows" in text


def test_another_target_and_numbers(tmp_path: Path) -> None:
    data, text, experiment = written(save(tmp_path / "people.csv.gz", people()), "--target", "weight")
    assert data["target"] == "weight" and experiment.resolved_task.name == "regression"
    assert "as --target says" in text and "task: regression" in text
    assert "churn" in data["features"] and "left_us" in data["features"]


def test_a_column_of_splits_and_rare_classes(tmp_path: Path) -> None:
    columns = {
        "x": [place * 0.5 + 0.25 for place in range(100)],
        "part": ["train"] * 60 + ["val"] * 20 + ["test"] * 20,
        "grade": [1 if place % 10 == 0 else 3 for place in range(100)],
    }
    data, text, _ = written(save(tmp_path / "graded.csv", columns))
    assert data == {"path": str(tmp_path / "graded.csv"), "target": "grade", "split": "part"}
    assert "# balance: classes" in text and "class `1` has few rows (6)" in text
    assert "60 to train on, 20 validation, 20 test" in text


def test_hostile_names_of_columns_stand_in_the_file_as_they_are(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    names = ["null", "a: b", "it's # 1", "größe  2", "yes", "3", 'say "no"', "[x]", "-"]
    lines = [";".join([f"{value:.4f}" for value in random.normal(size=9)] + ["k"]) for _ in range(60)]
    path = tmp_path / "names of; columns.csv"
    path.write_text(";".join([*(name.replace('"', "'") for name in names), "constant"]) + "\n" + "\n".join(lines))
    data, _, _ = written(path, "--target", "a: b")
    assert data["features"] == [name.replace('"', "'") for name in names if name != "a: b"]


def test_parquet(tmp_path: Path) -> None:
    import polars

    columns = people()
    columns["age"] = [None if value == "" else value for value in columns["age"]]
    polars.DataFrame(columns).write_parquet(tmp_path / "people.parquet")
    data, _, _ = written(tmp_path / "people.parquet")
    assert data["target"] == "churn" and "header" not in data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b\n", "has no rows"),
        ("a\n1\n2\n", "has one column alone: `a`"),
        ("a,b\n1,2\n1,2\n1,2\n", "no column looks like something to learn"),
        ("a,a\n1,2\n", "2 columns called `a`"),
        ("x,y\n" + "1,0\n2,1\n" * 2 + "3,\n", "row 5 has no value in the target column `y`"),
    ],
)
def test_tables_that_nothing_can_be_learned_from(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    assert message in refused(path, *(["--target", "y"] if "x,y" in text else []))


def test_a_target_that_is_not_there_or_unfit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "people.csv", people())
    assert "has no column `chrn`" in (said := refused(path, "--target", "chrn")) and "did you mean `churn`?" in said
    assert "is the same in every row" in refused(path, "--target", "country")
    assert "120 different words or texts" in refused(path, "--target", "name")
    assert "there is nothing at" in refused(tmp_path / "none.csv")
    (tmp_path / "photos").mkdir()
    assert "--target names a column of a table" in refused(tmp_path / "photos", "--target", "x")
    monkeypatch.setattr("dltrain.data.tables.reading.find_spec", lambda name: None)
    assert "pip install 'dltrain[table]'" in refused(path)


FILES = {
    "boston-housing.csv": ("medv", "regression"), "california-housing.csv.gz": ("median_house_value", "regression"),
    "diabetes.csv": ("Outcome", "binary_classification"), "iris.csv": ("species", "classification"),
    "mpg.csv": ("mpg", "regression"), "penguins.csv": ("species", "classification"),
    "pima-indians-diabetes.data.csv": ("column_9", "binary_classification"),
    "sonar.csv": ("column_61", "binary_classification"),
    "titanic.csv": ("Survived", "binary_classification"),
}  # fmt: skip
needs_data = pytest.mark.skipif(not SHARED.exists(), reason=f"needs {SHARED}")


@needs_data
def test_targets_of_real_tables(tmp_path: Path) -> None:
    for name, (target, task) in FILES.items():
        result = invoke("init", SHARED / name, "--output", tmp_path / f"{name}.yaml", "--no-time")
        assert result.exit_code == 0, result.stderr
        experiment = Experiment.load(tmp_path / f"{name}.yaml")
        found = experiment.data.model_dump()
        assert (found["target"], experiment.resolved_task.name) == (target, task)
        assert found["header"] == (name not in ("pima-indians-diabetes.data.csv", "sonar.csv"))
        if name == "titanic.csv":
            assert found["features"] == ["Pclass", "Sex", "Age", "SibSp", "Parch", "Fare", "Embarked"]


@needs_data
@pytest.mark.parametrize(("name", "tag", "least"), [("penguins.csv", "accuracy", 0.9), ("mpg.csv", "r2", 0.6)])
def test_real_tables_train(name: str, tag: str, least: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x.yaml"
    assert invoke("init", SHARED / name, "-o", target, "--no-time").exit_code == 0
    monkeypatch.chdir(tmp_path)
    short = ["training.epochs=12", "schedule.warmup={epochs: 1}", "training.average=null"]
    assert invoke("fit", target, *short).exit_code == 0
    row = (tmp_path / "runs" / "x" / "001" / "metrics.csv").read_text().splitlines()
    measured = dict(zip(row[0].split(","), row[-1].split(","), strict=True))
    assert float(measured[f"validation/{tag}"]) > least
