"""Layers that train differently as the training goes on count optimizer steps, however often a step runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rationing import some
from training import arrays_experiment, assert_same_state, built, trained

from dltrain.layers.impl.modules import step_counters

LAYERS: dict[str, dict[str, Any]] = {
    "drop_block": {"drop_block": {"rate": 0.2, "size": 3, "ramp": 50}},
    "batch_renorm": {"norm": {"name": "batch_renorm", "plain_steps": 2, "r_steps": 9, "d_steps": 9}},
    "pwlu": {"activation": {"name": "pwlu", "statistics_steps": 4}},
}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {"training__accumulate": 1},
    "accumulate": {"training__accumulate": 4},
    "sam": {"training__accumulate": 2, "optimizer__sam": {"rho": 0.05}},
    "closure": {"optimizer": {"name": "lbfgs", "max_iter": 3}, "training__clip_norm": None},
}
SHORT: dict[str, Any] = {
    "augmentation": [], "training__batch_size": 24, "schedule": "constant", "training__early_stopping": None,
}  # fmt: skip


def options(layer: str, way: str) -> dict[str, Any]:
    return {**SHORT, "model": {"name": "convnet", "widths": [6, 8], **LAYERS[layer]}, **WAYS[way]}


@pytest.mark.parametrize("way", some(WAYS, 2))
@pytest.mark.parametrize("layer", LAYERS)
def test_a_step_counts_once(layer: str, way: str, arrays: Path) -> None:
    trainer = trained(arrays_experiment(arrays, **options(layer, way)), until=7)
    counters = step_counters(trainer.parts.model)
    assert counters and trainer.step == 7
    assert {name: int(counter) for name, counter in counters.items()} == dict.fromkeys(counters, 7)
    assert set(counters) <= set(trainer.state_dict()["model"])


@pytest.mark.parametrize("layer", LAYERS)
def test_a_resumed_training_goes_on_counting(layer: str, arrays: Path) -> None:
    experiment = arrays_experiment(arrays, **options(layer, "accumulate"))
    whole = trained(experiment)
    second = built(experiment)
    second.load_state_dict(trained(experiment, until=7).state_dict())
    for _ in second.run():
        pass
    assert_same_state(second.state_dict(), whole.state_dict())
