"""A task that dltrain does not know, in one file: trained, measured and asked as classification is."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training import table
from typer.testing import CliRunner, Result

from dltrain import ConfigError, Experiment
from dltrain.cli import app
from dltrain.config import section
from dltrain.data.base import Dataset
from dltrain.tasks import Loss, Task

PLUGIN = '''
from typing import Literal

import numpy as np

from dltrain.data.base import ImageDataset
from dltrain.data.sources import ArraySource
from dltrain.data.targets import Real
from dltrain.data.types import RawDataset
from dltrain.tasks.base import Task
from dltrain.tasks.losses import Loss
from dltrain.tasks.metrics import Metric
from dltrain.tasks.outputs import Output


class Numbers(Output):
    words = "a light per image"


class Lights(ImageDataset):
    """Images and how bright they are."""

    name: Literal["lights"] = "lights"

    @property
    def targets(self):
        return Real

    def read(self):
        draw = np.random.default_rng(0)
        targets = draw.uniform(0, 1, (100, 1))
        pixels = (255 * targets[:, :, None, None] + draw.normal(0, 5, (100, 1, 8, 8))).clip(0, 255)
        return RawDataset(ArraySource(pixels.astype(np.uint8), targets), None, None, Real(["light"]))


class SquaredError(Loss):
    """(o - t)^2."""

    name: Literal["squared_error"] = "squared_error"
    outputs = (Numbers,)

    def build(self, output):
        from torch import nn

        class Squares(nn.Module):
            def forward(self, outputs, targets):
                return (outputs - targets).square().mean(1)

        return Squares()


class Regression(Task):
    """Numbers."""

    name: Literal["numbers"] = "numbers"
    targets, outputs = (Real,), Numbers
    metrics = (Metric("loss", "min"), Metric("mae", "min", ".3f"))
    ranks = "mae"

    def default_loss(self):
        return SquaredError()

    def output(self, target):
        return Numbers(len(target.names))

    def guess(self, split, target, targets):
        return None

    def build(self, loss, target, device, *, targets=None, auxiliary=0.0, combined=False):
        import torch

        from dltrain.tasks.impl.base import BuiltTask
        from dltrain.tasks.impl.meters import Meter, Report

        class Errors(Meter):
            kinds = {"errors": torch.float64}

            def batch_sums(self, outputs, targets):
                return {"errors": (outputs - targets).abs().sum((1, 2))}

            def values(self, sums, examples):
                return {"mae": sums["errors"] / examples}

        class Measured(Report):
            sums = ()

            def __init__(self):
                self.sums = [torch.zeros((), device=device) for _ in range(3)]

            def update(self, outputs, targets, losses, valid=None):
                errors = (outputs - targets).abs().sum(1)
                for total, values in zip(self.sums, (losses, errors, torch.ones_like(losses))):
                    total += values[:valid].sum()

            def compute(self):
                loss, errors, examples = map(float, self.sums)
                return {"loss": loss / examples, "mae": errors / examples}

            def to_dict(self):
                return {"examples": int(self.sums[2]), **self.compute()}

            def table(self):
                return str(self.to_dict())

        class Built(BuiltTask):
            columns = target.names

            def own_losses(self, outputs, targets, scale):
                losses = self.reported_losses(outputs, targets)
                return outputs, losses, losses

            def reported_losses(self, outputs, targets):
                return criterion(outputs, targets)

            def meter(self):
                return Errors(device)

            def report(self):
                return Measured()

            def combine(self, outputs, weights=None):
                return torch.stack(outputs).mean(0)

            def confidence(self, outputs):
                return outputs.new_zeros(len(outputs))

            def answers(self, outputs, inputs):
                return [dict(zip(target.names, row)) for row in outputs.tolist()]

        criterion = loss.build(self.output(target))
        return Built()
'''
TEXT = """
task: numbers
data: {name: lights, validation: 0.2}
model: {name: mlp, hidden: []}
optimizer: {lr: 0.03}
schedule: {name: reduce_on_plateau, metric: train/mae}
training: {epochs: 8, batch_size: 16, early_stopping: {metric: validation/mae}}
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file; what it adds is gone afterwards."""
    known = {kind: list(kind.catalogue) for kind in (Dataset, Loss, Task)}
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "lights.py"
    path.write_text(PLUGIN)
    yield path
    for kind, entries in known.items():
        kind.catalogue[:] = entries
    section._index.cache_clear()


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result


def test_a_task_of_ones_own_is_one_file(plugin: Path, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(TEXT)
    said = invoke("fit", "e.yaml", "--plugin", plugin, "--device", "cpu").stderr
    run = tmp_path / "runs/e/001"
    rows = [float(row["validation/mae"]) for row in table(run)]
    assert float(table(run)[-1]["train/mae"]) > 0 and rows[-1] < rows[0]
    result = json.loads((run / "result.json").read_text())
    assert result["best_metric"] == "validation/mae" and result["best_epoch"] == 1 + int(np.argmin(rows)), (
        "less is best"
    )
    assert f"best validation/mae {min(rows):.3f} in epoch" in said and "  data              lights" in said

    found = json.loads(invoke("eval", run, "--split", "validation", "--json", "--plugin", plugin).stdout)
    assert found["mae"] == pytest.approx(min(rows), rel=1e-5) and found["examples"] == 20
    assert (run / "eval/validation.csv").read_text().startswith("index,loss\n")
    compared = invoke("compare", run, run, "--plugin", plugin).stdout
    assert "loss differs by +0.0000 (+0.0000 to +0.0000): undecided (p = 1, paired bootstrap)" in compared
    light, dark = (Image.new("L", (8, 8), value) for value in (230, 20))
    for name, image in (("light", light), ("dark", dark)):
        image.save(tmp_path / f"{name}.png")
    answers = invoke("predict", run, "light.png", "dark.png", "--plugin", plugin).stdout
    (_, one), (_, other) = (row.values() for row in csv.DictReader(answers.splitlines()))
    assert float(one) > float(other) + 0.3
    assert answers.startswith("path,light\n")

    for text, wrong in (
        (TEXT.replace("validation/mae", "validation/accuracy"), "task `numbers` has no metric `validation/accuracy`"),
        (TEXT + "loss: mse\n", "loss `mse` takes .*, and task `numbers` gives a light per image"),
        (TEXT.replace("0.2}", "0.2, balance: classes}"), "`balance` draws classes, and .* data `lights` has numbers"),
        (TEXT.replace("task: numbers", "task: classification"), "learns a class, and an example of data `lights` has"),
    ):
        with pytest.raises(ConfigError, match=wrong):
            Experiment.parse(text)
    swept = Experiment.parse(TEXT + "sweep: {space: {optimizer.lr: {low: 0.1, high: 1}}}").sweep
    assert swept is not None and swept.metric == "validation/mae"
