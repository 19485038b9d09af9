"""The table of a measured split: what `eval` writes, what it says, and what reading it refuses."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answers import KINDS, LABELS, TASKS, fit_task
from conftest import REPOSITORY
from evaluating import invoke, measured

from dltrain import Experiment
from dltrain.commands import evaluate
from dltrain.errors import RunError
from dltrain.evidence import examples
from dltrain.evidence.examples import ExampleTable, find_table, read_examples
from dltrain.tasks.outcomes import ClassOutcomes, LabelOutcomes, Outcomes, listed, unlisted


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """A classifier, measured on the test split."""
    run = fit_task(folder, "classification")
    measured(run)
    return run


def outcomes_of(run: Path) -> type[Outcomes]:
    return Experiment.load(run / "experiment.yaml").resolved_task.outcomes()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", TASKS)
def test_the_table_says_what_was_measured(name: str, folder: Path) -> None:
    run = fit_task(folder, name)
    found = measured(run)
    table = read_examples(run / "eval/test.csv", outcomes_of(run))
    assert len(table) == found["examples"] and (table.index == np.arange(len(table))).all()
    every = np.ones((1, len(table)))
    measures = table.measures
    assert set(measures) == {metric.name for metric in Experiment.load(run / "experiment.yaml").resolved_task.metrics}
    for metric, of in measures.items():
        assert of(every)[0] == pytest.approx(found[metric], rel=2e-6, abs=1e-7), metric
    recorded = json.loads((run / "eval/test.json").read_text())
    assert recorded["table"] == "test.csv" and len(recorded["examples_digest"]) == 32
    losses = [float(row["loss"]) for row in rows_of(run / "eval/test.csv")]
    assert losses == sorted(losses, reverse=True) and min(losses) < max(losses)
    lines = (folder / "rows.csv").read_text().splitlines()
    for row in rows_of(run / "eval/test.csv")[:5]:
        if name == "several numbers":
            given = dict(zip(next(csv.reader(lines)), next(csv.reader([lines[int(row["row"])]])), strict=True))
            assert float(row["target of size"]) == float(given["size"])
            assert float(row["target of weight"]) == float(given["weight"])
        if name == "classification":
            assert f'"{row["target"]}"' in lines[int(row["row"])], "`row` says where in the file it stands"


def test_the_columns_of_each_task(folder: Path) -> None:
    where = ["index", "path", "row"]
    expected = {
        "classification": ["target", "prediction", "loss", *(f"probability of {name}" for name in KINDS)],
        "binary_classification": ["target", "prediction", "loss", "probability of no", "probability of yes"],
        "multilabel": ["target", "prediction", "loss", *(f"probability of {name}" for name in LABELS)],
        "regression": ["target", "prediction", "loss"],
        "several numbers": ["loss", "target of size", "target of weight", "prediction of size", "prediction of weight"],
        "reconstruction": ["loss", "mse"],
    }  # fmt: skip
    for name, columns in expected.items():
        run = fit_task(folder, name)
        measured(run, "--split", "validation")
        assert list(rows_of(run / "eval/validation.csv")[0]) == [*where, *columns], name


def test_the_name_says_what_was_measured(run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(run, tmp_path / "run"))
    measured(run, "--split", "train", "--checkpoint", "last")
    names = {path.name for path in (run / "eval").iterdir()}
    assert names == {"test.csv", "test.json", "train-last.csv", "train-last.json"}


def test_a_large_table_is_parquet_and_says_the_same(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("polars")
    run = Path(shutil.copytree(run, tmp_path / "run"))
    text = read_examples(run / "eval/test.csv", ClassOutcomes)
    monkeypatch.setattr(examples, "MOST_ROWS", 20)
    measured(run)
    found = find_table(run / "eval/test")
    assert found == run / "eval/test.parquet" and not (run / "eval/test.csv").exists()
    table = read_examples(found, ClassOutcomes)
    assert np.array_equal(table.losses.astype(np.float32), text.losses.astype(np.float32))
    assert isinstance(table.outcomes, ClassOutcomes) and isinstance(text.outcomes, ClassOutcomes)
    assert np.array_equal(table.outcomes.probabilities, text.outcomes.probabilities)
    assert list(table.where["row"]) == [int(row) for row in text.where["row"]]

    monkeypatch.setattr(examples, "find_spec", lambda name: None)
    done = invoke("eval", run)
    assert "is written as text; pip install 'dltrain[table]' for Parquet" in done.stderr
    assert find_table(run / "eval/test") == run / "eval/test.csv", "one table is left"
    found.write_bytes(b"PAR1 and no more")
    with pytest.raises(RunError, match="polars, which is not installed"):
        read_examples(found, ClassOutcomes)
    monkeypatch.undo()
    with pytest.raises(RunError, match="it is no Parquet file"):
        read_examples(found, ClassOutcomes)


def test_of_too_many_outputs_no_table_is_kept(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Path(shutil.copytree(run, tmp_path / "run"))
    monkeypatch.setattr(examples, "MOST_KEPT", 100)
    monkeypatch.setattr(evaluate, "MOST_KEPT", 100)
    done = invoke("eval", run)
    assert done.exit_code == 0 and "no table of the examples is kept: it would have more than 100 cells" in done.stderr
    assert find_table(run / "eval/test") is None, "the earlier one would not belong to this result"
    assert "table" not in json.loads((run / "eval/test.json").read_text())


def test_losses_that_are_no_numbers_come_first() -> None:
    losses = np.array([0.5, np.nan, 2.0, np.inf, 2.0])
    table = ExampleTable(np.arange(5), {}, losses, Outcomes())
    assert table.worst_first().index.tolist() == [1, 3, 2, 4, 0]
    assert b"1,nan\n3,inf\n2,2.0\n4,2.0\n0,0.5\n" in table.encoded()[1]


@pytest.mark.parametrize("names", [[], ["a"], ["a", "b; c"], ['"', " x ", ""], ["a\nb", 'q"q"']])
def test_lists_of_names_come_back_from_a_cell(names: list[str]) -> None:
    assert unlisted(listed(names)) == names
    assert listed(["ant", "bee"]) == "ant; bee"


def change(path: Path, row: int, column: str, value: str) -> None:
    rows = rows_of(path)
    rows[row][column] = value
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("loss", "low", "`low` in row 3 of column `loss` is no number"),
        ("index", "7.5", "`index` does not count 48 examples from 0"),
        ("target", "dog", "`dog` in row 3 of column `target` is none of the names that have a probability"),
        ("probability of bee", "1.5", r"1.5 in row 3 of column `probability of bee` is no probability"),
        ("probability of bee", "", "`` in row 3 of column `probability of bee` is no number"),
    ],
)
def test_a_forged_cell_is_named(run: Path, tmp_path: Path, column: str, value: str, message: str) -> None:
    path = Path(shutil.copy(run / "eval/test.csv", tmp_path))
    change(path, 2, column, value)
    with pytest.raises(RunError, match=message) as raised:
        read_examples(path, ClassOutcomes)
    assert str(path) in str(raised.value) and raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no first line that names every column"),
        (b"index,loss,loss\n0,1,1\n", "no first line that names every column, each once"),
        (b"index,loss\n", "it has no rows"),
        (b"index,loss\n0,1\n1\n", "row 2 has 1 cells, and there are 2 columns"),
        (b"index,loss\n0,\xff\n", "can't decode byte"),
        (b'index,loss\n0,"1\n', "unexpected end of data"),
        (b"index,target\n0,1\n", "it has no column `loss`"),
        (b"index,loss\n0,1\n", "it has no column `probability of ...`"),
        (b"index,loss,probability of a,probability of b,target,prediction\n0,1,0.4,0.4,a,b\n", "have the sum 0.8"),
    ],
)  # fmt: skip
def test_a_forged_table_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_bytes(content)
    with pytest.raises(RunError, match=message):
        read_examples(tmp_path / "test.csv", ClassOutcomes)


def test_a_label_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('index,target,prediction,loss,probability of a\n0,"a; b",,1,0.5\n')
    with pytest.raises(RunError, match="`b` in row 1 of column `target` is none of the names"):
        read_examples(tmp_path / "t.csv", LabelOutcomes)


def test_images_are_named_by_their_files_and_arrays_by_their_place(tmp_path: Path) -> None:
    from training import write_arrays, write_folder

    def tables(data: str) -> dict[str, Any]:
        (tmp_path / "e.yaml").write_text(f"data: {data}\nmodel: {{name: mlp, hidden: []}}\n"
                                         "training: {epochs: 1, batch_size: 16}\n")  # fmt: skip
        done = invoke("fit", tmp_path / "e.yaml", "--runs", tmp_path / "runs", "--device", "cpu")
        measured(done.stdout.strip())
        return rows_of(Path(done.stdout.strip()) / "eval/test.csv")[0]

    photo = tables(f"{{name: image_folder, root: {write_folder(tmp_path / 'photos')}, size: 8}}")
    assert Path(photo["path"]).is_file() and Path(photo["path"]).parent.name == photo["target"]
    assert {"path", "row"}.isdisjoint(tables(f"{{name: arrays, path: {write_arrays(tmp_path / 'a.npz')}}}"))


def test_the_program_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = (REPOSITORY / "docs/evidence.md").read_text().partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    assert (tmp_path / "eval.csv").read_text() == "index,loss\n1,0.4\n2,0.2\n0,0.1\n"
    assert "verdict='higher'" in capsys.readouterr().out
