"""Batch norm that would measure one value per channel is known before a training starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from dltrain import ConfigError, EpochReport, Experiment, build
from dltrain.cli import app
from dltrain.engine.statistics import require_statistics
from dltrain.experiment.training import Training
from dltrain.layers.impl.statistics import averaging_layers, measuring
from dltrain.planning.plan import plan

MLP = "{name: mlp, hidden: [16], norm: batch_norm}"
DEEP = "{name: convnet, widths: [4, 4, 4, 4], norm: %s}"
"""On 8x8 images its last norm sees maps of one pixel."""


def experiment(model: str, training: str, more: str = "") -> Experiment:
    return Experiment.parse(f"data: digits\nmodel: {model}\ntraining: {training}\n{more}", "one")


@pytest.mark.parametrize(
    ("model", "training", "line"),
    [
        (MLP, "{steps: 2, batch_size: 1}", "batch_size: 1"),
        (MLP, "{steps: 2, batch_size: 4, accumulate: 4}", "accumulate: 4"),
        (DEEP % "batch_norm", "{steps: 2, batch_size: 1}", "batch_size: 1"),
        (DEEP % "batch_renorm", "{steps: 2, batch_size: 6, accumulate: 6}", "accumulate: 6"),
        (DEEP % "l1_batch_norm", "{steps: 2, batch_size: 1}", "batch_size: 1"),
        (DEEP % "sync_batch_norm", "{steps: 2, batch_size: 1}", "batch_size: 1"),
        ("resnet20", "{steps: 9, batch_size: 1, progressive_size: {start: 0.5, multiple_of: 1}}", "batch_size: 1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", [build, plan])
def test_it_is_refused_with_its_place(way: Any, model: str, training: str, line: str) -> None:
    with pytest.raises(ConfigError, match="would measure one value per channel") as caught:
        way(experiment(model, training), "cpu")
    (problem,) = caught.value.diagnostics
    assert problem.where is not None and problem.where.line == 3
    assert problem.where.source[problem.where.column - 1 :].startswith(line.split()[1])


@pytest.mark.parametrize(
    ("model", "training", "more"),
    [
        (MLP, "{steps: 2, batch_size: 2}", ""),
        (MLP.replace("batch_norm", "layer_norm"), "{steps: 2, batch_size: 1}", ""),
        ("{name: convnet, widths: [4, 4], norm: batch_norm}", "{steps: 2, batch_size: 2, accumulate: 2}", ""),
        (DEEP % "{name: group_norm, groups: 2}", "{steps: 2, batch_size: 1}", ""),
    ],
)
def test_what_has_more_values_trains(model: str, training: str, more: str) -> None:
    trainer = build(experiment(model, training, more), "cpu")
    for event in trainer.run():
        assert np.isfinite(event.metrics["train/loss"] if isinstance(event, EpochReport) else event.metrics["loss"])


@pytest.mark.parametrize("way", [build, plan])
def test_a_group_of_one_channel_is_nothing_to_normalise_on_one_pixel(way: Any) -> None:
    """Whatever the batch: each image is normalised by itself."""
    with pytest.raises(ConfigError, match=r"`13` \(GroupNorm\) would measure one value: .* end there in one pixel"):
        way(experiment(DEEP % "{name: group_norm, groups: 4}", "{steps: 2, batch_size: 16}"), "cpu")


def test_the_share_of_a_device_is_what_counts() -> None:
    two = experiment(DEEP % "batch_norm", "{steps: 2, batch_size: 2}")
    trainer = build(two, "cpu")
    require_statistics(two, trainer.parts.model, trainer.parts.shape)
    with pytest.raises(ConfigError, match=r"batch_size 2 / devices 2 is 1"):
        require_statistics(two, trainer.parts.model, trainer.parts.shape, devices=2)
    both = experiment(DEEP % "sync_batch_norm", "{steps: 2, batch_size: 2}")
    require_statistics(both, build(both, "cpu").parts.model, trainer.parts.shape, devices=2)
    assert isinstance(two.training, Training)


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_nothing_is_created(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(f"data: digits\nmodel: {MLP}\ntraining: {{steps: 3, batch_size: 4, accumulate: 4}}\n")
    result = invoke("fit", path, "--runs", tmp_path / "runs")
    assert result.exit_code == 2 and "one.yaml:3:49" in result.stderr, result.stderr
    assert "batch_size 4 / accumulate 4 is 1" in result.stderr and not (tmp_path / "runs").exists()


def test_a_single_image_adapts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(f"data: digits\nmodel: {MLP}\ntraining: {{steps: 1, batch_size: 16}}\n")
    assert invoke("fit", path, "--runs", tmp_path).exit_code == 0
    Image.new("L", (8, 8), 90).save(tmp_path / "a.png")
    result = invoke("adapt", tmp_path / "one/001", tmp_path / "a.png", "--output", tmp_path / "a.pt")
    assert result.exit_code == 2 and "cannot measure a single image" in result.stderr, result.stderr
    assert not (tmp_path / "a.pt").exists()


def test_measuring_takes_the_mean_of_the_batches() -> None:
    network = torch.nn.Sequential(torch.nn.Dropout(0.9), torch.nn.BatchNorm1d(3)).eval()
    batches = [torch.randn(8, 3) + shift for shift in range(4)]
    with measuring(network) as numbers:
        for batch, _ in zip(batches, numbers):
            network(batch)
    norm = averaging_layers(network)[0]
    assert not norm.training and norm.momentum == 0.1
    torch.testing.assert_close(norm.running_mean, torch.stack([batch.mean(0) for batch in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([batch.var(0) for batch in batches]).mean(0))
