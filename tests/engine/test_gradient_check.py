"""`check --gradients`: right gradients are right to 1e-6, a wrong one is found, and a kink is no mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from torch import Tensor, nn
from training import EVERYTHING, arrays_experiment, merged
from typer.testing import CliRunner

from dltrain import Experiment
from dltrain.cli import app
from dltrain.engine.gradient_check import CheckedTensor, check_gradients


def checked(experiment: Experiment, coordinates: int = 3) -> dict[str, CheckedTensor]:
    return {each.name: each for each in check_gradients(experiment, 1e-6, coordinates)}


@pytest.mark.parametrize(
    "text",
    ["data: {name: digits, scaling: none}\nmodel: {name: variational_autoencoder, hidden: [8], code: 3}",
     "data: diabetes\nmodel: {name: mlp, hidden: [4]}", "data: wine\nmodel: softmax_regression",
     "data: breast_cancer\nmodel: logistic_regression\ntask: binary_classification"],
    ids=["objective", "regression", "table", "binary"],
)  # fmt: skip
def test_each_task_and_a_network_with_an_objective_of_its_own(text: str) -> None:
    found = checked(Experiment.parse(text + "\ntraining: {batch_size: 16}\n"))
    assert all(each.error < 1e-6 for each in found.values()), found
    assert max(each.gradient for each in found.values()) > 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"penalties": [{"name": "elastic_net", "strength": 0.01}]},
        {"model": {"name": "convnet", "widths": [6, 8], "norm": "group_norm", "activation": "acon_c"},
         "optimizer": {"name": "lbfgs"}, "training__clip_norm": None, "loss": "focal", "gradient": "backpropagation",
         "augmentation": []},
        {"model": {"name": "autoencoder", "hidden": [], "code": 5}, "augmentation": [], "loss": "mse",
         "training__early_stopping": None},
    ],
    ids=["everything", "others", "reconstruction"],
)  # fmt: skip
def test_gradients_are_right_with_dropout_batch_norm_and_mixing(changes: dict[str, Any], arrays: Path) -> None:
    """In two parts of a batch; what is random is the same in each evaluation."""
    found = checked(arrays_experiment(arrays, **changes))
    assert len(found) >= 4 and all(each.error < 1e-6 for each in found.values()), found
    assert max(each.gradient for each in found.values()) > 1e-3
    assert {each.checked for each in found.values()} == {3}


class SlightlyWrong(torch.autograd.Function):
    """ReLU, whose gradient is a thousandth too large."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return gradient * (x > 0) * 1.001


def test_a_wrong_gradient_is_named_and_the_exit_code_is_1(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["check", "--gradients", str(REPOSITORY / "experiments/digits.yaml"), "model={name: mlp, hidden: [4]}",
             "training.batch_size=8", "--coordinates", "4"]  # fmt: skip
    right = CliRunner().invoke(app, words)
    assert right.exit_code == 0 and "all 4 are right to 1e-06" in right.stdout, right.output
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: SlightlyWrong.apply(x))
    wrong = CliRunner().invoke(app, [*words, "--json"])
    found = json.loads(wrong.stdout)
    assert wrong.exit_code == 1 and found["passed"] is False
    assert [row["passed"] for row in found["tensors"]] == [False, False, True, True], "of the layers before it"
    assert found["tensors"][0]["error"] == pytest.approx(1e-3, rel=0.02)
    loose = CliRunner().invoke(app, [*words, "--tolerance", "0.01"])
    assert loose.exit_code == 0


def test_a_number_on_a_kink_is_counted_apart(tmp_path: Path) -> None:
    """All images are black and the offsets 0, so that each unit stands on the kink of its ReLU."""
    labels = np.arange(40) % 2
    np.savez(tmp_path / "black.npz", images=np.zeros((40, 8, 8), dtype=np.uint8), labels=labels)
    text = f"data: {{name: arrays, path: '{tmp_path}/black.npz', scaling: none}}\ntraining: {{batch_size: 10}}\n"
    model = "model: {name: mlp, hidden: [4], initialization: he_normal}\n"
    found = checked(Experiment.parse(text + model), 10)
    offsets = next(each for name, each in found.items() if name.endswith("bias"))
    assert (offsets.checked, offsets.kinks, offsets.gradient, offsets.error) == (4, 4, 0.0, 0.0)
    assert all(each.error < 1e-6 for each in found.values())


def test_options_of_gradients_alone_and_mistakes_end_with_2(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text("data: digits\nmodel: mpl\n")
    assert CliRunner().invoke(app, ["check", "--json", str(tmp_path / "e.yaml")]).exit_code == 2
    assert CliRunner().invoke(app, ["check", "--gradients", str(tmp_path / "e.yaml")]).exit_code == 2
    assert merged(EVERYTHING, {})["training"]["accumulate"] == 2, "what the first test relies on"
