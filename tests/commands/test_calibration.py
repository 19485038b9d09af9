"""`eval --calibrate`, all that uses its temperature, and `predict --abstain`."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from answers import fit_task
from evaluating import invoke, measured
from torch.nn import functional as F
from training import train

from dltrain import load
from dltrain.errors import RunError
from dltrain.evidence.examples import read_examples
from dltrain.runs import checkpoints
from dltrain.tasks.outcomes import ClassOutcomes

CALIBRATED = {
    "classification": [], "multilabel": [],
    "binary_classification": ["task={name: binary_classification, threshold: 0.6}"],
}  # fmt: skip
"""Overrides by task; thresholds are chosen in one case and given in another."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Path]:
    """A calibrated run of each task that has probabilities."""
    found = {name: fit_task(folder, name, *overrides) for name, overrides in CALIBRATED.items()}
    for run in found.values():
        done = invoke("eval", run, "--calibrate")
        assert done.exit_code == 0, done.output
        assert "probabilities are calibrated" in done.stderr and "test, temperature " in done.stdout
    return found


def kept(run: Path) -> dict[str, Any]:
    found = json.loads((run / "checkpoints/best.calibration.json").read_text())
    assert isinstance(found, dict)
    return found


def kept_values(run: Path) -> dict[str, Any]:
    found = kept(run)
    found.pop("format")
    return found


def rows(*arguments: Any) -> list[dict[str, Any]]:
    done = invoke("predict", *arguments, "--format", "jsonl")
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", CALIBRATED)
def test_what_is_kept_is_what_eval_measures(name: str, runs: dict[str, Path]) -> None:
    run, found = runs[name], kept(runs[name])
    plain = measured(run, "--split", "validation", "--no-calibrate")
    used = measured(run, "--split", "validation")
    assert "calibration" not in plain and used["calibration"]["temperature"] == found["temperature"]
    assert (plain["ece"], used["ece"]) == pytest.approx((found["before"]["ece"], found["after"]["ece"]), abs=1e-6)
    assert (plain["loss"], used["loss"]) == pytest.approx((found["before"]["nll"], found["after"]["nll"]), rel=1e-5)
    assert found["after"]["nll"] < found["before"]["nll"] and plain["ece_bins"] == found["bins"] == 15
    assert found["examples"] == plain["examples"] and found["fingerprint"] == plain["data_fingerprint"]
    same = ("accuracy", "f1", "roc_auc", "map", "macro_f1", "confusion_matrix")
    assert {key: plain[key] for key in same if key in plain} == {key: used[key] for key in same if key in used}
    assert {"validation.json", "validation-calibrated.json", "validation-calibrated.csv"} <= {
        path.name for path in (run / "eval").iterdir()
    }


def test_the_temperature_is_the_best_of_a_grid_on_the_table_of_eval(runs: dict[str, Path]) -> None:
    run = runs["classification"]
    measured(run, "--split", "validation", "--no-calibrate")
    outcomes = read_examples(run / "eval/validation.csv", ClassOutcomes).outcomes
    logits, target = torch.from_numpy(outcomes.probabilities).double().log(), torch.from_numpy(outcomes.target)
    grid = np.exp(np.linspace(np.log(0.2), np.log(5), 20_001))
    losses = [float(F.cross_entropy(logits / each, target)) for each in grid]
    assert kept(run)["temperature"] == pytest.approx(grid[int(np.argmin(losses))], rel=5e-4)


@pytest.mark.parametrize("name", CALIBRATED)
def test_predict_and_python_use_it_and_say_so(name: str, runs: dict[str, Path], folder: Path) -> None:
    run, table = runs[name], folder / "rows.csv"
    done = invoke("predict", run, table)
    assert "logits are divided by a temperature of" in done.stderr
    assert "calibrated" not in invoke("predict", run, table, "--no-calibrate").stderr
    used, plain = rows(run, table), rows(run, table, "--no-calibrate")
    answer = "labels" if name == "multilabel" else "class"
    assert [row[answer] for row in used] == [row[answer] for row in plain]
    p, q = (np.array([[*row["probabilities"].values()] for row in each]) for each in (used, plain))
    temperature = kept(run)["temperature"]
    if name == "multilabel":
        expected = 1 / (1 + np.exp(-np.log(q / (1 - q)) / temperature))
    else:
        powers = q ** (1 / temperature)
        expected = powers / powers.sum(1, keepdims=True)
    assert p == pytest.approx(expected, abs=1e-5) and np.abs(p - q).max() > 1e-3

    model = load(run, device="cpu")
    told = model.predict(table)
    assert model.temperature == told.temperature == temperature and told.probabilities == pytest.approx(p, abs=1e-6)
    bare = load(run, device="cpu", calibrated=False)
    assert bare.temperature == 1 and bare.predict(table).probabilities == pytest.approx(q, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["multilabel", "binary_classification"])
def test_exported_files_have_it_inside_and_say_so(name: str, runs: dict[str, Path], folder: Path) -> None:
    pytest.importorskip("onnxscript")
    run, table = runs[name], folder / "rows.csv"
    used, answer = rows(run, table), "labels" if name == "multilabel" else "class"
    assert invoke("export", run).exit_code == 0
    file = run / "export/model.onnx"
    assert json.loads((file.parent / "export.json").read_text())["calibration"] == kept_values(run)
    exported = rows(file, table)
    assert [row[answer] for row in exported] == [row[answer] for row in used]
    p, q = (np.array([[*row["probabilities"].values()] for row in each]) for each in (exported, used))
    assert p == pytest.approx(q, abs=1e-5)
    assert "logits are divided by a temperature of" in invoke("predict", file, table).stderr
    by_file, by_run = measured(file), measured(run)
    assert by_file["calibration"] == by_run["calibration"] and by_file["ece"] == pytest.approx(by_run["ece"], abs=1e-5)
    assert "confusion_matrix" not in by_file or by_file["confusion_matrix"] == by_run["confusion_matrix"]
    for option in (["eval", file, "--no-calibrate"], ["predict", file, table, "--abstain", "0.1"]):
        refused = invoke(*option)
        assert refused.exit_code == 2 and "leave out --" in refused.stderr


def test_the_other_formats_bring_it_too(runs: dict[str, Path], tmp_path: Path) -> None:
    run = runs["classification"]
    for form in ("pt2", "safetensors"):
        done = invoke("export", run, "--format", form, "-o", tmp_path / f"model.{form}")
        assert done.exit_code == 0, done.output
        assert json.loads((tmp_path / "export.json").read_text())["calibration"] == kept_values(run)
    assert json.loads((tmp_path / "config.json").read_text())["temperature"] == kept(run)["temperature"]
    assert "divide the logits by" in done.stderr
    plain = tmp_path / "plain" / "model.safetensors"
    assert invoke("export", run, "--format", "safetensors", "-o", plain, "--no-calibrate").exit_code == 0
    assert "temperature" not in json.loads((plain.parent / "config.json").read_text())
    extra = {"dltrain": ""}
    program = torch.export.load(str(tmp_path / "model.pt2"), extra_files=extra).module()
    assert json.loads(extra["dltrain"])["calibration"] == kept_values(run)
    outputs = dict(zip(json.loads(extra["dltrain"])["outputs"], program(torch.randn(3, 4).double()), strict=True))
    assert torch.allclose(outputs["outputs"].softmax(1), outputs["probabilities"], atol=1e-6)


def test_views_have_temperatures_of_their_own(arrays: Path, tmp_path: Path) -> None:
    code, run = train(arrays, tmp_path, training__epochs=2)
    assert code == 0
    measured(run.path, "--split", "validation", "--calibrate")
    done = invoke("eval", run.path, "--split", "validation", "--views", "flip")
    assert "probabilities are not calibrated: the temperature is that of other views (center_crop" in done.stderr
    assert ", temperature" not in done.stdout
    assert load(run.path, device="cpu", views="flip").temperature == 1
    again = measured(run.path, "--split", "validation", "--views", "flip", "--calibrate")
    assert again["calibration"]["views"] == "flip"
    assert "calibration" not in measured(run.path, "--split", "validation")


def test_an_ensemble_averages_calibrated_probabilities(runs: dict[str, Path]) -> None:
    run = runs["classification"]
    whole = measured(run, run)
    assert [each["calibration"] for each in whole["members"]] == [measured(run)["calibration"]] * 2
    assert whole["loss"] == pytest.approx(measured(run)["loss"], rel=1e-5)


def test_each_run_of_a_folder_has_its_own(runs: dict[str, Path], folder: Path) -> None:
    """The file is that of the fixture."""
    file = folder / "classification.yaml"
    assert invoke("fit", file, "name=folded", "--folds", "2", "--runs", folder, "--device", "cpu").exit_code == 0
    several = folder / "folded/folds-001"
    whole = measured(several, "--calibrate")
    used = [kept(several / name)["temperature"] for name in ("fold-1", "fold-2")]
    assert [each["calibration"]["temperature"] for each in whole["members"]] == used and used[0] != used[1]
    assert (several / "eval/test-calibrated.json").is_file() and not (several / "eval/test.json").exists()
    done = invoke("predict", several, folder / "rows.csv", "--abstain", "0.1")
    assert done.exit_code == 2 and "or other parts of it" in done.stderr
    assert invoke("predict", several, folder / "rows.csv").exit_code == 0


@pytest.mark.parametrize("name", ["regression", "reconstruction"])
def test_tasks_without_probabilities_are_refused(name: str, folder: Path) -> None:
    run = fit_task(folder, name)
    done = invoke("eval", run, "--calibrate")
    assert done.exit_code == 2 and f"task `{name}` gives no probabilities" in done.stderr
    done = invoke("predict", run, folder / "rows.csv", "--abstain", "0.1")
    assert done.exit_code == 2 and f"one of several classes, and the task is `{name}`" in done.stderr
    assert not list((run / "checkpoints").glob("*.json"))


@pytest.fixture
def copied(runs: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs["classification"], tmp_path / "classification" / "001"))


FORGED = {
    "no JSON": (lambda text: text[:40], "is no calibration"),
    "a list": (lambda text: "[]", "is no calibration: it has no format"),
    "another format": (lambda text: text.replace('"format": 1', '"format": 2'), "format 2"),
    "no temperature": (lambda text: text.replace('"temperature"', '"heat"'), "`temperature`"),
    "not a number": (lambda text: _with(text, temperature=float("nan")), "`temperature`"),
    "a negative one": (lambda text: _with(text, temperature=-1.5), "`temperature`"),
    "zero": (lambda text: _with(text, temperature=0.0), "`temperature`"),
    "words": (lambda text: _with(text, temperature="1.5"), "`temperature`"),
    "an error above 1": (lambda text: _with(text, after={"nll": 0.1, "ece": 1.5}), "`after.ece`"),
    "deep": (lambda text: "[" * 100_000, "is no calibration"),
    "another checkpoint": (lambda text: _with(text, checkpoint="0" * 64), "is of another checkpoint than best.pt"),
}  # fmt: skip
"""What is made of the file, and what is said of it."""


def _with(text: str, **values: Any) -> str:
    return json.dumps(json.loads(text) | values)


@pytest.mark.parametrize("name", FORGED)
def test_a_calibration_that_is_none_is_refused(name: str, copied: Path, folder: Path) -> None:
    forge, reason = FORGED[name]
    file = copied / "checkpoints/best.calibration.json"
    file.write_text(forge(file.read_text()))
    for command in (["eval", copied], ["predict", copied, folder / "rows.csv"]):
        done = invoke(*command)
        assert done.exit_code == 2 and reason in done.stderr, done.output
        assert str(file) in done.stderr and "--no-calibrate" in done.stderr and not done.stdout
    with pytest.raises(RunError, match="calibration"):
        load(copied, device="cpu")
    if name == "no JSON":
        assert invoke("eval", copied, "--no-calibrate").exit_code == 0
        assert invoke("eval", copied, "--calibrate").exit_code == 0, "fitted anew"


def test_the_temperature_of_one_checkpoint_is_not_used_for_another(copied: Path) -> None:
    assert "calibration" not in measured(copied, "--checkpoint", "last")
    best = copied / "checkpoints/best.pt"
    state = checkpoints.load(best)
    checkpoints.save({**state, "step": state["step"] + 1}, best)
    done = invoke("eval", copied)
    assert done.exit_code == 2 and "is of another checkpoint than best.pt" in done.stderr


@pytest.mark.parametrize("name", ["classification", "binary_classification"])
def test_sets_hold_what_the_validation_split_says(name: str, runs: dict[str, Path], folder: Path) -> None:
    run = runs[name]
    done = invoke("predict", run, folder / "rows.csv", "--abstain", "0.1")
    assert done.exit_code == 0 and "with a probability of 0.9 or more (split-conformal" in done.stderr
    first = next(csv.DictReader(io.StringIO(done.stdout)))
    assert [*first][-2:] == ["set", "abstains"] and first["abstains"] in ("true", "false")
    measured(run, "--split", "validation")
    with (run / "eval/validation-calibrated.csv").open(newline="") as file:
        told = list(csv.DictReader(file))
    true = sorted((float(row["probability of " + row["target"]]) for row in told), reverse=True)
    least = true[-(-(len(true) + 1) * 9 // 10) - 1]
    found = rows(run, folder / "rows.csv", "--abstain", "0.1")
    for row in found:
        expected = [each for each, p in row["probabilities"].items() if p >= least - 1e-6]
        assert row["set"] == expected and row["abstains"] == (len(expected) != 1)
    assert {row["abstains"] for row in found} == {True, False}


def test_sets_are_refused_where_nothing_backs_them(runs: dict[str, Path], folder: Path) -> None:
    run, table = runs["classification"], folder / "rows.csv"
    count = kept(run)["examples"]
    done = invoke("predict", run, table, "--abstain", "0.001")
    assert done.exit_code == 2 and not done.stdout
    assert f"sets with a coverage of 0.999 take 999 validation examples, and there are {count}" in done.stderr
    for wrong in ("0", "1", "-0.1", "five", "nan", "1/0"):
        assert invoke("predict", run, table, "--abstain", wrong).exit_code == 2
    done = invoke("predict", run, table, "--abstain", "0.1", "--truth", "kind")
    assert done.exit_code == 2 and "not both" in done.stderr
    done = invoke("predict", runs["multilabel"], table, "--abstain", "0.1")
    assert done.exit_code == 2 and "the task is `multilabel`" in done.stderr


def test_without_a_validation_split_there_is_neither(folder: Path) -> None:
    run = fit_task(folder, "classification", "data.validation=0", run="undivided")
    for command in (["eval", run, "--calibrate"], ["predict", run, folder / "rows.csv", "--abstain", "0.1"]):
        done = invoke(*command)
        assert done.exit_code == 2 and "has no validation split" in done.stderr, done.output
