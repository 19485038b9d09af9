"""`training.log_gradients`: the norm of each layer's gradient at the end of an epoch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training import write_arrays

from dltrain import EpochReport, Experiment, build
from dltrain.engine.layer_gradients import TAG, LayerGradients

DEEP = """
data: {{name: arrays, path: {path}, validation: 0.2, test: 0}}
model: {{name: mlp, hidden: [8, 8, 8, 8, 8], activation: {activation}}}
training: {{epochs: 1, batch_size: all, log_gradients: true, clip_norm: 1.0e-3}}
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arrays(tmp_path_factory.mktemp("data") / "images.npz", 60)


def row(text: str, path: Path, activation: str = "relu", **changes: Any) -> tuple[dict[str, float], Experiment]:
    experiment = Experiment.parse(text.format(path=path, activation=activation), "deep").override_all(changes)
    trainer = build(experiment, "cpu")
    rows = [event.metrics for event in trainer.run() if isinstance(event, EpochReport)]
    trainer.close()
    return rows[-1], experiment


def of_layers(values: dict[str, float]) -> list[float]:
    return [value for tag, value in values.items() if tag.startswith(TAG)]


def test_they_are_those_of_the_loss_before_they_are_cut(path: Path) -> None:
    found, experiment = row(DEEP, path)
    trainer = build(experiment, "cpu")
    parts = trainer.parts
    inputs, targets = parts.pipeline.train(next(parts.train.batches(0)), 0)
    nn.functional.cross_entropy(parts.model(inputs), targets).backward()
    linear = {TAG + name: layer for name, layer in parts.model.named_modules() if isinstance(layer, nn.Linear)}
    expected = {tag: math.hypot(*(float(p.grad.norm()) for p in layer.parameters())) for tag, layer in linear.items()}  # type: ignore[union-attr]
    own = {tag: value for tag, value in found.items() if tag.startswith(TAG)}
    assert own == pytest.approx(expected, rel=1e-4) and list(own) == list(linear) and len(own) == 6
    assert math.hypot(*own.values()) == pytest.approx(found["norm/gradient"], rel=1e-5)
    assert found["norm/gradient"] > 1e-3


def test_they_show_a_gradient_that_vanishes(path: Path) -> None:
    vanishing, lasting = (of_layers(row(DEEP, path, activation)[0]) for activation in ("sigmoid", "relu"))
    assert vanishing[0] < 1e-2 * vanishing[-1] and lasting[0] > 1e-2 * lasting[-1]


def test_every_update_gives_them_and_nobody_else(path: Path) -> None:
    lbfgs = {"optimizer": {"name": "lbfgs"}, "training.clip_norm": "auto", "schedule": "constant"}
    assert len(of_layers(row(DEEP, path, **lbfgs)[0])) == 6
    assert len(of_layers(row(DEEP, path, **{"optimizer.sam": {}})[0])) == 6
    assert of_layers(row(DEEP, path, **{"training.log_gradients": False})[0]) == []


def test_norms_are_no_layers_and_a_weight_in_two_factors_is_one() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    nn.utils.parametrizations.weight_norm(network[3])
    network(torch.randn(3, 1, 3, 3)).square().sum().backward()
    network[0].requires_grad_(False)
    network[0].weight.grad = network[0].bias.grad = None
    layers = LayerGradients(network)
    assert layers.row() == {}
    layers.measure()
    ((tag, value),) = layers.row().items()
    expected = nn.utils.get_total_norm([p.grad for p in network[3].parameters() if p.grad is not None])
    assert tag == f"{TAG}3" and value == pytest.approx(float(expected))
