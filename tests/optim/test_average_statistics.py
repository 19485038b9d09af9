"""The statistics of batch norm in a stochastic weight average: those of its weights, as the paper measures them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training import arrays_experiment, assert_same_state, built, trained, write_folder

from dltrain import Experiment, Trainer, build

SWA: dict[str, Any] = {
    "augmentation": [{"name": "random_crop", "padding": 1}, "horizontal_flip"], "training__early_stopping": None,
    "model": {"name": "convnet", "widths": [6, 8], "dropout": 0.3, "norm": "batch_norm"}, "schedule": "constant",
    "training__average": {"name": "swa", "start": 0.5}, "training__epochs": 4, "training__accumulate": 1,
}  # fmt: skip


def measured_again(trainer: Trainer) -> list[nn.Module]:
    """The norms of a copy of the average, after the mean of the batches of the last epoch."""
    network = copy.deepcopy(trainer.parts.average.model)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    start = trainer.step - trainer.settings.steps_per_epoch
    batches = trainer.parts.train.batches(start)
    with torch.no_grad():
        for step in range(start, trainer.step):
            network(trainer.parts.pipeline.train(next(batches), step)[0])
    batches.close()
    return norms


def assert_fit(trainer: Trainer) -> None:
    norms = [layer for layer in trainer.parts.average.model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)
    for own, expected in zip(norms, measured_again(trainer), strict=True):
        torch.testing.assert_close(own.running_mean, expected.running_mean)
        torch.testing.assert_close(own.running_var, expected.running_var)


def test_they_are_those_of_the_batches_of_the_last_epoch(arrays: Path) -> None:
    trainer = trained(arrays_experiment(arrays, **SWA))
    assert_fit(trainer)
    plain = trained(arrays_experiment(arrays, **{**SWA, "training__average": None}))
    assert_same_state(plain.parts.model.state_dict(), trainer.parts.model.state_dict())
    again = trainer.evaluate(trainer.parts.validation)  # type: ignore[arg-type]
    assert again.loss == trainer.history[-1]["validation/loss"]


def test_a_stream_of_files_is_read_aside(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos")
    text = f"""
data: {{name: image_folder, root: '{tmp_path / "photos"}', size: 8, loader: streaming, workers: 1, validation: 0}}
augmentation: [{{name: random_resized_crop}}]
model: {{name: convnet, widths: [4, 4], norm: batch_norm}}
training: {{epochs: 3, batch_size: 8, precision: float32, average: {{name: swa, start: 0.3}}}}
"""
    trainer = build(Experiment.parse(text), "cpu")
    try:
        for _ in trainer.run():
            pass
        assert_fit(trainer)
    finally:
        trainer.close()


@pytest.mark.parametrize("until", [13, 17])
@pytest.mark.parametrize("epochs", [0.6, 1.3])
def test_a_resumed_average_has_the_same(until: int, epochs: float, arrays: Path) -> None:
    changes = {**SWA, "training__average": {"name": "swa", "start": 0.4, "epochs": epochs}, "training__accumulate": 2}
    experiment = arrays_experiment(arrays, **changes)
    whole, second = trained(experiment), built(experiment)
    second.load_state_dict(trained(experiment, until=until).state_dict())
    for _ in second.run():
        pass
    assert_same_state(second.state_dict(), whole.state_dict())


def test_frozen_statistics_stay(arrays: Path) -> None:
    groups = [{"match": "1.*", "frozen": True}]
    optimizer = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "groups": groups}
    trainer = trained(arrays_experiment(arrays, **SWA, optimizer=optimizer))
    first, second = (m for m in trainer.parts.average.model.modules() if isinstance(m, nn.BatchNorm2d))
    assert not first.running_mean.any() and second.running_mean.any()
