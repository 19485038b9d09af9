"""The task `reconstruction` in every command: what is reported is what was trained."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sklearn.datasets import load_digits
from training import assert_same_state, built, table, trained
from typer.testing import CliRunner, Result

from dltrain import Experiment
from dltrain.cli import app
from dltrain.data.targets import NoTarget
from dltrain.runs.events import read_images
from dltrain.tasks import Reconstruction
from dltrain.tasks.losses import BinaryCrossEntropy, MeanSquaredError

VAE: dict[str, Any] = {
    "data": {"name": "digits", "scaling": "none"},
    "model": {"name": "variational_autoencoder", "hidden": [16], "code": 3},
    "loss": "binary_cross_entropy",
    "optimizer": {"name": "adam", "lr": 0.01},
    "training": {"epochs": 4, "batch_size": 100, "early_stopping": {"metric": "validation/mse"}},
}


def experiment(**changes: Any) -> Experiment:
    return Experiment.parse(yaml.safe_dump(VAE)).override_all({k.replace("__", "."): v for k, v in changes.items()})


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trainings of VAE from different seeds; the first is given."""
    folder = tmp_path_factory.mktemp("vae")
    (folder / "vae.yaml").write_text(yaml.safe_dump(VAE))
    for seed in range(2):
        invoke("fit", folder / "vae.yaml", f"seed={seed}", "--runs", folder / "runs", "--device", "cpu")
    return folder / "runs/vae/001"


def test_eval_gives_what_validation_reported(run: Path) -> None:
    row = table(run)[-1]
    found = json.loads(invoke("eval", run, "--split", "validation", "--json").stdout)
    assert found["loss"] == pytest.approx(float(row["validation/loss"]), rel=1e-6)
    assert found["mse"] == pytest.approx(float(row["validation/mse"]), rel=1e-6)
    half, most, nearly_all = found["mse_quantiles"].values()
    assert found["examples"] == 143 and half < most < nearly_all and half == pytest.approx(found["mse"], rel=0.3)
    assert json.loads((run / "result.json").read_text())["best_metric"] == "validation/mse"
    shown = invoke("eval", run).stdout
    assert "loss" in shown and "mse, 99% below" in shown


def test_recorders_get_inputs_over_their_reconstructions_and_samples(run: Path) -> None:
    found = read_images(run)
    steps = [int(row["step"]) for row in table(run)]
    shapes = {"validation/reconstructions": (3, 40, 80), "samples": (3, 40, 80)}
    assert [key for key in found if key[1]] == [(name, step) for step in steps for name in shapes]
    assert all(grid.shape == shapes[name] for (name, step), grid in found.items() if step)
    last = found["validation/reconstructions", steps[-1]][0].reshape(4, 10, 80)
    inputs, outputs = last[::2], last[1::2]
    assert 0.01 < (inputs - outputs).square().mean() < 0.2
    first = found["validation/reconstructions", steps[0]][0].reshape(4, 10, 80)
    assert torch.equal(first[::2], inputs) and not torch.equal(first[1::2], outputs)


def test_an_ensemble_is_measured_by_its_mean_reconstruction(run: Path) -> None:
    found = json.loads(invoke("eval", run, run.parent / "002", "--json").stdout)
    alone = [member["mse"] for member in found["members"]]
    assert found["mse"] < sum(alone) / 2 and found["loss"] < 1, "the mean over values, without divergences"
    result = CliRunner().invoke(app, ["eval", str(run), "--views", "flip"])
    assert result.exit_code == 2 and "makes no one answer of several views" in result.output


def test_reconstructions_in_other_units_have_no_mean(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mse.yaml").write_text(yaml.safe_dump(VAE))
    invoke("fit", tmp_path / "mse.yaml", "loss=mse", "training.epochs=1", "--runs", tmp_path, "--device", "cpu")
    Image.new("L", (8, 8)).save(tmp_path / "empty.png")
    for command in (["eval", run, tmp_path / "mse/001"], ["predict", run, tmp_path, "--with", tmp_path / "mse/001"]):
        result = CliRunner().invoke(app, list(map(str, command)))
        assert result.exit_code == 2 and "their reconstructions have no mean" in result.output, result.output


@pytest.mark.parametrize(
    "model",
    [{"name": "variational_autoencoder", "hidden": [8], "code": 2},
     {"name": "restricted_boltzmann_machine", "hidden": 8, "visible": "gaussian"}],
    ids=["codes", "energy"],
)  # fmt: skip
def test_rows_of_tables_are_reconstructed(model: dict[str, Any]) -> None:
    given = Experiment.parse(
        yaml.safe_dump({"data": "wine", "model": model, "training": {"epochs": 3, "batch_size": 16}})
    )
    losses = [row["validation/loss"] for row in trained(given).history]
    assert losses[-1] < losses[0] and given.resolved_task.name == "reconstruction"


def test_predict_gives_the_error_of_each_image(run: Path, tmp_path: Path) -> None:
    noise = 255 * np.random.default_rng(0).integers(0, 2, (8, 8), dtype=np.uint8)
    for name, pixels in (("noise", noise), ("digit", (load_digits().images[0] * 255 / 16).astype(np.uint8))):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    rows = list(csv.DictReader(invoke("predict", run, tmp_path).stdout.splitlines()))
    (digit, one), (other, two) = ((Path(row["path"]).stem, float(row["mse"])) for row in rows)
    assert (digit, other) == ("digit", "noise") and two > 2 * one > 0
    out = tmp_path / "out"
    written = invoke("predict", run, tmp_path / "digit.png", "--reconstructions", out, "--format", "jsonl").stdout
    assert json.loads(written) == {
        "path": str(tmp_path / "digit.png"), "reconstruction": str(out / "000001-digit.png"),
        "mse": pytest.approx(one, abs=1e-6),
    }  # fmt: skip
    pictures = [np.asarray(Image.open(path), float) / 255 for path in (tmp_path / "digit.png", *out.iterdir())]
    assert np.square(pictures[0] - pictures[1]).mean() == pytest.approx(one, abs=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"training__accumulate": 2, "training__average": {"name": "ema", "decay": 0.5}},
        {"optimizer": {"name": "sgd", "lr": 0.01, "sam": {}}, "training__precision": "bfloat16"},
        {"optimizer": {"name": "lbfgs", "max_iter": 2}, "data__scaling": "standardize", "loss": "mse"},
        {"model": {"name": "denoising_autoencoder", "code": 8}, "augmentation": ["mixup"], "training__compile": False},
    ],
)
def test_it_goes_on_bit_for_bit(changes: dict[str, Any]) -> None:
    given = experiment(training__steps=6, **changes)
    whole, half = trained(given), trained(given, until=3)
    rest = built(given, 1e9, half.state_dict())
    for _ in rest.run():
        pass
    assert_same_state(whole.state_dict(), rest.state_dict())


def test_what_is_reported_of_training_is_what_the_sums_say() -> None:
    task = Reconstruction().build(MeanSquaredError(), NoTarget(), torch.device("cpu"))
    outputs, images = torch.rand(2, 6, 1, 3, 3).unbind(0)
    meter = task.meter()
    for rows in (slice(0, 4), slice(4, 6)):
        _, losses, _ = task.losses(outputs[rows], images[rows])
        meter.update(losses, outputs[rows], images[rows])
    expected = (outputs - images).square().mean().item()
    assert meter.compute() == pytest.approx({"loss": expected, "mse": expected})
    again = task.meter()
    again.load_state_dict(meter.state_dict())
    assert again.compute() == meter.compute() == again.of_all(lambda tensors: None).compute()


def test_means_of_probabilities_become_logits_again() -> None:
    task = Reconstruction().build(BinaryCrossEntropy(), NoTarget(), torch.device("cpu"))
    outputs = [torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, -50.0]])]
    together = task.combine(outputs)
    assert together.sigmoid().tolist() == [pytest.approx([0.615529, 0.440399], abs=1e-5)]
    assert task.reported_losses(together, torch.zeros(1, 2)).isfinite().all()
