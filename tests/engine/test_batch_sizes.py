"""Full batches and batches of one: `training.batch_size: all` and `1`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training import arrays_experiment, assert_same_state, built, result, table, trained, write_arrays
from typer.testing import CliRunner

from dltrain import ConfigError, EpochReport, Experiment, build
from dltrain.cli import app
from dltrain.engine.length import count_steps
from dltrain.planning.plan import plan

WHOLE = """
name: whole
data: {{name: arrays, path: {path}, validation: 0.25, test: 0, scaling: none}}
model: softmax_regression
loss: {{name: mse, form: half_sum}}
optimizer: {{name: sgd, lr: 0.4}}
schedule: constant
training: {{epochs: 4, batch_size: all, clip_norm: null}}
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arrays(tmp_path_factory.mktemp("data") / "images.npz", 60, size=5)


@pytest.fixture
def whole(path: Path) -> Experiment:
    return Experiment.parse(WHOLE.format(path=path), "whole")


def test_gradient_descent_on_a_quadratic_shrinks_the_error_by_one_minus_rate_times_curvature(whole: Experiment) -> None:
    """W - W* is multiplied by I - h L, L = X'X/N: it is exactly the whole training part, in every step."""
    trainer = build(whole, "cpu")
    loader = trainer.parts.train
    images = loader.source.load(np.arange(45), loader.layout)[0]
    x = torch.cat([images.flatten(1).double() / 255, torch.ones(45, 1)], 1)
    targets = torch.nn.functional.one_hot(loader.targets, 3).double()
    curvature = x.T @ x / 45
    best = torch.linalg.lstsq(x, targets).solution

    def error() -> torch.Tensor:
        weight, bias = (parameter.detach().double() for parameter in trainer.parts.model.parameters())
        return torch.cat([weight.T, bias[None]]) - best

    before = error()
    for event in trainer.run():
        assert isinstance(event, EpochReport) and event.step == event.epoch
        after = error()
        torch.testing.assert_close(after, before - 0.4 * curvature @ before, rtol=1e-4, atol=1e-6)
        before = after


def test_a_run_records_the_number_and_repeats_it(path: Path, tmp_path: Path) -> None:
    (tmp_path / "whole.yaml").write_text(WHOLE.format(path=path))

    def invoke(*arguments: object) -> None:
        found = CliRunner().invoke(app, [*map(str, arguments)])
        assert found.exit_code == 0, found.stderr

    invoke("fit", tmp_path / "whole.yaml", "--runs", tmp_path / "runs")
    run = tmp_path / "runs/whole/001"
    decisions = json.loads((run / "environment.json").read_text())["decisions"]
    assert decisions["batch_size"] == {"value": 45, "reason": "all training examples: an epoch is a step"}
    assert Experiment.load(run / "experiment.yaml").training.batch_size == 45
    assert json.loads((run / "plan.json").read_text())["batch_size"] == 45
    invoke("fit", run / "experiment.yaml", "--runs", tmp_path / "runs")
    again = tmp_path / "runs/whole/002"
    assert table(again) == table(run) and len(table(run)) == 4
    invoke("resume", run, "training.epochs=6")
    assert result(run)["step"] == 6 and len(table(run)) == 6
    invoke("eval", run, "--split", "validation")


def test_validation_is_not_repeated_to_fill_a_batch(whole: Experiment) -> None:
    trainer = build(whole, "cpu")
    assert trainer.parts.validation is not None
    assert [len(batch) for batch, _ in trainer.parts.validation.evaluation_batches()] == [15]
    trainer.close()


def test_a_plan_has_the_number(whole: Experiment) -> None:
    found = plan(whole.override("optimizer", {"name": "lbfgs"}), "cpu")
    assert (found["batch_size"], found["steps_per_epoch"], found["steps"]) == (45, 1, 4)
    assert found["decisions"]["batch_size"]["value"] == 45 and found["warnings"] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"training.batch_size": "all", "training.epochs": 4},
        {"training.batch_size": 1, "training.accumulate": 1, "training.limit_batches": 3, "training.epochs": 2,
         "augmentation": ["horizontal_flip", {"name": "random_crop", "padding": 1}], "data.loader": "streaming"},
    ],
    ids=["all", "one"],
)  # fmt: skip
def test_it_goes_on_bit_for_bit(changes: dict[str, Any], path: Path) -> None:
    experiment = arrays_experiment(path, **{**changes, "data.test": 0})
    whole, part = trained(experiment), trained(experiment, until=2)
    again = built(experiment, 1e9, part.state_dict())
    list(again.run())
    left, right = again.state_dict(), whole.state_dict()
    for key in ("model", "optimizer", "metrics", "history", "about"):
        assert_same_state(left[key], right[key], key)


@pytest.mark.parametrize(
    ("changes", "devices", "message", "note", "line"),
    [
        ({"training.accumulate": 4}, 1, "all 45 training examples cannot be cut into 4 equal parts",
         "write accumulate: 3, or change `data.validation` so that 4 divides them", "training.accumulate=4"),
        ({}, 2, "all 45 training examples cannot be cut into 2 equal parts",
         "change `data.validation` so that 2 divides them", "training: {epochs: 4, batch_size: all"),
    ],
)  # fmt: skip
def test_unequal_parts_are_refused_at_their_key(
    changes: dict[str, Any], devices: int, message: str, note: str, line: str, whole: Experiment
) -> None:
    with pytest.raises(ConfigError) as caught:
        count_steps(whole.override_all(changes), 45, devices)
    (problem,) = caught.value.diagnostics
    assert (problem.message, problem.notes) == (message, (note,))
    assert problem.where is not None and problem.where.source.startswith(line)


def test_one_example_is_nothing_to_mix(whole: Experiment) -> None:
    mixed = whole.override("augmentation", ["mixup"])
    assert mixed.override("training.batch_size", 2).training.batch_size == 2
    with pytest.raises(ConfigError, match=r"`mixup` mixes examples of a batch, and `training.batch_size: 1`"):
        mixed.override("training.batch_size", 1)


def test_a_sweep_may_draw_it(whole: Experiment) -> None:
    space = {"training.batch_size": {"choices": [15, "all"]}}
    swept = whole.override("sweep", {"trials": 2, "epochs": 2, "space": space})
    assert swept.sweep is not None and swept.sweep.size() == 2
