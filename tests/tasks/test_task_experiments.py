"""The experiments on numbers and labels: made of Fashion-MNIST by the script, and as good as their files say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import REPOSITORY
from evaluating import invoke, measured


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_examples", REPOSITORY / "scripts/make_examples.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_made_is_what_the_targets_say(script: ModuleType) -> None:
    bar = np.zeros((1, 28, 28), np.uint8)
    bar[0, :14, 12:16] = 255  # it points upwards
    made = script.angles(np.repeat(bar, 40, 0), 40, 0)
    rows, columns = np.mgrid[:28, :28] - 13.5
    mass = made["images"].sum((1, 2), dtype=float)
    x, y = ((made["images"] * place).sum((1, 2)) / mass for place in (columns, rows))
    assert np.abs(np.degrees(np.arctan2(-x, -y)) - made["targets"]).max() < 3, "counterclockwise"
    assert np.abs(made["targets"]).max() > 30
    classes = np.arange(10)
    images = np.broadcast_to(classes[:, None, None], (10, 28, 28)).astype(np.uint8)
    tiles = script.tiles(images, classes, 60, 0)
    assert tiles["images"].shape == (60, 56, 56) and tiles["targets"].any(0).all() and not tiles["targets"].all(1).all()
    for picture, labels in zip(tiles["images"], tiles["targets"], strict=True):
        assert [kind in picture for kind in script.KINDS.values()] == labels.tolist()


GOALS = {"fashion_angles": ("rmse", 9.0), "fashion_tiles": ("map", 0.96)}


@pytest.mark.slow
@pytest.mark.parametrize("name", GOALS)
def test_an_experiment_is_as_good_as_it_says(
    name: str, script: ModuleType, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.make(shared_data, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    done = invoke("fit", REPOSITORY / f"experiments/tasks/{name}.yaml", "--device", "cpu")
    assert done.exit_code == 0, done.output
    metric, goal = GOALS[name]
    found = measured(f"runs/{name}/001")[metric]
    assert found < goal if metric == "rmse" else found > goal
