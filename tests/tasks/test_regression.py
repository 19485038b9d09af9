"""Numbers: learned in standard deviations, told in their own units, and equal to scikit-learn's."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluating import invoke, measured
from learning import write_targets
from PIL import Image
from sklearn import metrics
from training import result, table

from dltrain import ConfigError, Experiment, build
from dltrain.data.targets import Real
from dltrain.engine.diagnosis import diagnose
from dltrain.tasks import MeanSquaredError
from dltrain.tasks.impl.regression import BuiltRegression
from dltrain.tasks.regression import MeanGuess, Regression

CPU = torch.device("cpu")
TEXT = """
data: {{name: arrays, path: {}, validation: 0.2}}
model: {{name: mlp, hidden: [16]}}
optimizer: {{lr: 0.03}}
training: {{epochs: 6, batch_size: 16, early_stopping: {{metric: validation/mae}}}}
"""


def drawn(n: int = 90, count: int = 3) -> tuple[BuiltRegression, torch.Tensor, torch.Tensor]:
    """A task of three numbers, outputs (n, 3) and targets (n, 3) in their own units, float64."""
    draw = np.random.default_rng(0)
    targets = draw.normal(0, 1, (n, count)) * [1e-3, 1.0, 1e4] + [2.0, 0.0, -1e5]
    target = Real(["small", "usual", "large"]).fitted(targets[:50])
    outputs = (targets + draw.normal(0, 0.5, targets.shape) * target.std - target.mean) / target.std
    task = Regression().build(MeanSquaredError(), target, CPU)
    return task, torch.from_numpy(outputs), torch.from_numpy(targets)


def test_the_report_is_that_of_scikit_learn_in_the_units_of_the_targets() -> None:
    task, outputs, targets = drawn()
    parts = [task.report(), task.report()]
    for report, rows in zip(parts, (slice(0, 40), slice(40, 90))):
        padded = [torch.cat([values[rows], values[:7] * 9]) for values in (outputs, targets)]
        task.measure(report, padded[0], padded[1], valid=len(outputs[rows]))
    for total, other in zip(parts[0].sums, parts[1].sums, strict=True):  # as processes add theirs
        total += other
    found, values = parts[0].to_dict(), task.units.values(outputs).numpy()
    expected = targets.numpy()
    assert found["examples"] == 90 and [row["target"] for row in found["per_target"]] == ["small", "usual", "large"]
    for key, score in (("rmse", metrics.root_mean_squared_error), ("mae", metrics.mean_absolute_error),
                       ("r2", metrics.r2_score)):  # fmt: skip
        each = score(expected, values, multioutput="raw_values")
        assert [row[key] for row in found["per_target"]] == pytest.approx(each, rel=1e-9)
        assert found[key] == pytest.approx(each.mean(), rel=1e-9)
    assert [row["spread"] for row in found["per_target"]] == pytest.approx(expected.std(0), rel=1e-9)
    std = task.units.std.numpy()
    assert found["loss"] == pytest.approx((((values - expected) / std) ** 2).mean(), rel=1e-6)
    text = parts[0].table()
    assert "R2" in text and text.splitlines()[-1].startswith("large") and "the means of these" in text


def test_training_batches_are_summed_in_the_same_units() -> None:
    task, outputs, targets = drawn()
    meter = task.meter()
    for rows in (slice(0, 32), slice(32, 64), slice(64, 90)):
        answer, losses, _ = task.losses(outputs[rows], targets[rows])
        meter.update(losses, answer, targets[rows])
    report = task.report()
    task.measure(report, outputs, targets, valid=90)
    expected = report.compute()
    assert meter.compute() == pytest.approx({key: expected[key] for key in ("loss", "rmse", "mae")}, rel=1e-6)
    again = task.meter()
    again.load_state_dict(meter.state_dict())
    assert again.compute() == meter.compute()
    with pytest.raises(ValueError, match="the sums `squares` of the epoch are"):
        again.load_state_dict({**meter.state_dict(), "squares": torch.zeros(3)})


def test_targets_that_do_not_vary_explain_nothing() -> None:
    task = Regression().build(MeanSquaredError(), Real(["x"], [3.0], [2.0]), CPU)
    report = task.report()
    with pytest.raises(ValueError, match="no example"):
        report.compute()
    task.measure(report, torch.zeros(4, 1), torch.full((4, 1), 3.0), valid=4)
    found = report.to_dict()
    assert found["rmse"] == 0 and found["r2"] is None and math.isnan(report.compute()["r2"])
    json.dumps(found, allow_nan=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data, an experiment, and two runs of it with other losses."""
    folder = tmp_path_factory.mktemp("regression")
    write_targets(folder / "n.npz", "numbers")
    (folder / "n.yaml").write_text(TEXT.format(folder / "n.npz"))
    for number, changes in enumerate((["augmentation=[mixup]"], ["loss=huber", "training.epochs=2", "seed=1"]), 1):
        done = invoke("fit", folder / "n.yaml", "--runs", folder, "--device", "cpu", f"name=run{number}", *changes)
        assert done.exit_code == 0, done.output

    return folder


def test_it_learns_and_is_judged_by_less_error(runs: Path) -> None:
    rows, told = table(runs / "run1/001"), result(runs / "run1/001")
    errors = [float(row["validation/mae"]) for row in rows]
    assert told["best_metric"] == "validation/mae" and told["best_epoch"] == 1 + int(np.argmin(errors))
    assert float(rows[-1]["validation/r2"]) > 0.9 and float(rows[0]["train/rmse"]) > 10
    found = measured(runs / "run1/001", "--split", "validation")
    assert found["mae"] == pytest.approx(min(errors), rel=1e-6)
    plan = json.loads((runs / "run1/001" / "plan.json").read_text())
    assert (plan["task"], plan["loss"], plan["targets"]) == ("regression", "mse", "2 numbers")
    assert "best validation/mae" in (runs / "run1/001" / "log.txt").read_text()


def test_answers_have_the_units_of_the_data(runs: Path) -> None:
    with np.load(runs / "n.npz") as data:
        images, targets = data["images"][:5], data["targets"][:5]
    for number, image in enumerate(images):
        Image.fromarray(image).save(runs / f"{number}.png")
    files = [runs / f"{number}.png" for number in range(5)]
    rows = list(csv.DictReader(invoke("predict", runs / "run1/001", *files).stdout.splitlines()))
    assert list(rows[0]) == ["path", "left", "right"]
    answers = np.array([[float(row["left"]), float(row["right"])] for row in rows])
    assert np.abs(answers - targets)[:, 0].max() < 150
    together = measured(runs / "run1/001", runs / "run2/001")
    assert {"rmse", "mae", "r2"} <= set(together["members"][0]) and together["per_target"][0]["target"] == "left"
    lines = invoke(
        "predict", runs / "run1/001", *files, "--format", "jsonl", "--with", runs / "run2/001"
    ).stdout.splitlines()
    alone = [
        invoke("predict", runs / run, *files, "--format", "jsonl").stdout.splitlines()
        for run in ("run1/001", "run2/001")
    ]
    left = [[json.loads(line)["left"] for line in each] for each in (*alone, lines)]
    assert left[2] == pytest.approx(np.mean(left[:2], 0), rel=1e-6)
    refused = invoke("eval", runs / "run1/001", "--views", "flip", "--views-share", "0.5")
    assert refused.exit_code == 2 and "does not know which answers are the least sure" in refused.stderr


def test_other_data_is_matched_by_the_names_of_its_numbers(runs: Path, tmp_path: Path) -> None:
    write_targets(tmp_path / "same.npz", "numbers", examples=90)
    with np.load(tmp_path / "same.npz") as data:
        values = dict(data)
    turned = {"targets": values["targets"][:, ::-1], "names": ["right", "left"]}
    write_targets(tmp_path / "turned.npz", "numbers", examples=90, **turned)
    scores = [measured(runs / "run1/001", f"data.path={tmp_path / name}.npz")["rmse"] for name in ("same", "turned")]
    assert scores[0] == pytest.approx(scores[1], rel=1e-9)
    few = {"targets": values["targets"][:, :1], "names": ["left"]}
    for other, message in (
        ({"names": ["left", "top"]}, "not trained on these numbers of the data: `top`"),
        (few, "the data has no numbers `right`"),
        ({"targets": None, "labels": np.arange(90) % 2}, "learns numbers, and an example of data `arrays` has a class"),
    ):
        path = write_targets(tmp_path / "other.npz", "numbers", examples=90, **other)
        refused = invoke("eval", runs / "run1/001", f"data.path={path}")
        assert refused.exit_code == 2 and message in refused.stderr


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"targets": np.full(150, 3.5), "names": ["angle"]}, "`angle` is 3.5 in every training example"),
    ({"targets": np.where(np.arange(150) == 17, np.nan, 1.0 * np.arange(150)), "names": ["x"]},
     r"`targets\[17, 0\]`, `x`, is nan: a target must be a number"),
    ({"targets": np.where(np.arange(300) == 3, np.inf, 1.0 * np.arange(300)).reshape(150, 2)}, r"`1`, is inf"),
    ({"targets": np.arange(140.0)}, "a row for each image, and are of shape"),
    ({"targets": np.zeros((150, 2, 2))}, "`targets` cannot be float64 of shape"),
    ({"targets": np.array(["a"] * 150)}, "`targets` cannot be <U1"),
    ({"targets": np.zeros((150, 0))}, "hold nothing to learn"),
    ({"names": ["x"]}, "`names` are 1, and `targets` have 2 columns"),
    ({"names": ["x", "x"]}, "`names` names one twice"),
    ({"labels": np.zeros(150, int)}, "it has `labels` and `targets`"),
    ({"test_images": np.zeros((3, 8, 8), np.uint8)}, "it has no `test_targets`"),
    ({"test_images": np.zeros((3, 8, 8), np.uint8), "test_targets": np.zeros((3, 2), bool)}, "must be of one kind"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), BROKEN)
def test_what_cannot_be_learned_is_said_at_the_data(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    names = {"names": None} if "targets" in changes else {}
    path = write_targets(tmp_path / "n.npz", "numbers", **{**names, **changes})
    with pytest.raises(ConfigError, match=message) as caught:
        build(Experiment.parse(f"\ndata: {{name: arrays, path: {path}}}\nmodel: mlp\n", "e.yaml"), "cpu")
    assert str(caught.value.diagnostics[0].where).startswith("e.yaml:2:")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("augmentation: [cutmix]", "task `regression` has no targets of images that are pasted together"),
        ("loss: cross_entropy", "loss `cross_entropy` takes a number per class, and task `regression` gives"),
        ("evaluation: {views: flip, share: 0.3}", "does not know which answers are the least sure"),
        ("schedule: {name: reduce_on_plateau, metric: train/r2}", "`schedule.metric` must be one of"),
        ("task: classification", "learns a class, and an example of data `arrays` has numbers"),
    ],
)
def test_what_does_not_go_with_numbers_is_refused_at_its_key(line: str, message: str, runs: Path) -> None:
    text = (runs / "n.yaml").read_text() + line
    with pytest.raises(ConfigError, match=message) as caught:
        Experiment.parse(text, "e.yaml")
    assert any(problem.where is not None and problem.where.line == 6 for problem in caught.value.diagnostics)


def test_a_sweep_ranks_by_less_error(runs: Path) -> None:
    text = (runs / "n.yaml").read_text() + "sweep: {space: {optimizer.lr: {low: 0.1, high: 1}}}"
    swept = Experiment.parse(text).sweep
    assert swept is not None and swept.metric == "validation/rmse"


def test_a_network_that_only_gives_the_mean_is_told(runs: Path) -> None:
    trainer = build(Experiment.load(runs / "n.yaml", ["optimizer.lr=1e-9", "training.epochs=1"]), "cpu")
    assert isinstance(trainer.guess, MeanGuess)
    for _ in trainer.run():
        pass
    trainer.history[-1] |= {"validation/rmse": 300.0, "validation/r2": 0.02}
    said = diagnose(trainer, Experiment.load(runs / "n.yaml"))
    assert said is not None and "a validation RMSE of 300 after epoch 1 is no better than always giving" in said
    trainer.history[-1] |= {"validation/rmse": 100.0, "validation/r2": 0.4}
    assert diagnose(trainer, Experiment.load(runs / "n.yaml")) is None


def test_huber_and_smooth_l1_are_those_of_torch_and_meet() -> None:
    from dltrain.tasks import L1, Huber, SmoothL1
    from dltrain.tasks.outputs import Numbers

    outputs, targets = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    huber, smooth = (loss.build(Numbers(3))(outputs, targets) for loss in (Huber(delta=0.5), SmoothL1(beta=0.5)))
    torch.testing.assert_close(huber, 0.5 * smooth)
    tiny = SmoothL1(beta=1e-9).build(Numbers(3))(outputs, targets)
    torch.testing.assert_close(tiny, L1().build(Numbers(3))(outputs, targets))
    half = MeanSquaredError(form="half_sum").build(Numbers(3))(outputs, targets)
    torch.testing.assert_close(half, (outputs - targets).square().sum(1) / 2)
