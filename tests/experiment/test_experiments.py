"""Every experiment that we ship is valid, and trains for a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from learning import write_targets
from photos import make_photos
from rationing import some

from dltrain import EpochReport, Experiment, build
from dltrain.data.augmentation.base import AugmentationContext
from dltrain.data.random import Draws
from dltrain.data.tables.datasets import Table
from dltrain.data.targets import Classes
from dltrain.data.types import Batch, ImageShape
from dltrain.optim.optimizers.sgd import SGD

EXPERIMENTS = sorted((REPOSITORY / "experiments").glob("**/*.yaml"))
STAND_INS = {
    "mnist": "{name: synthetic, examples: 120, shape: [1, 28, 28]}",
    "fashion_mnist": "{name: synthetic, examples: 120, shape: [1, 28, 28]}",
    "cifar10": "{name: synthetic, examples: 120, shape: [3, 32, 32]}",
}
WIDE = ("resnext", "wide_resnet")
"""Experiments whose networks take 16 pixels as well as 32, in a third of the time."""


def shortened(path: Path, folder: Path) -> list[str]:
    """Overrides that make an experiment small: a stand-in for its data, one step, a small batch."""
    experiment = Experiment.load(path)
    data = experiment.data
    overrides = ["training.epochs=1", "training.batch_size=2", "training.limit_batches=1"]
    if data.name == "image_folder":
        photos = make_photos(folder / "photos")
        return [*overrides, f"data.root={photos}", "data.size=64", "model={name: timm/resnet18}"]
    if data.name == "arrays":
        kind = {"regression": "numbers", "multilabel": "labels"}[Experiment.load(path).resolved_task.name]
        return [*overrides, f"data.path={write_targets(folder / 'stand_in.npz', kind)}"]
    if isinstance(data, Table):
        assert isinstance(data.target, str)
        rows = [f"{number},{number % 7},{'ab'[number % 2]},{number % 2}" for number in range(60)]
        (folder / "rows.csv").write_text("\n".join([f"one,two,word,{data.target}", *rows]))
        overrides.append(f"data.path={folder / 'rows.csv'}")
    if data.name in STAND_INS:
        size = f", size: {data.size}" if data.size is not None else ""
        size += f", scaling: {data.scaling}"
        stand_in = STAND_INS[data.name].replace("32", "16") if path.stem in WIDE else STAND_INS[data.name]
        overrides.append(f"data={stand_in[:-1]}{size}}}")
    if getattr(experiment.model, "whitening", None):
        overrides.append("model.whitening.images=20")
    return [*overrides, *(["initialize_from=null"] if experiment.initialize_from is not None else [])]


@pytest.mark.usefixtures("one_stem")
@pytest.mark.parametrize("path", some(EXPERIMENTS, 4))
def test_trains_for_a_step(path: Path, tmp_path: Path) -> None:
    experiment = Experiment.load(path, shortened(path, tmp_path))
    trainer = build(experiment, "cpu")
    reports = [event for event in trainer.run() if isinstance(event, EpochReport)]
    trainer.close()
    assert reports[-1].step == 1
    assert np.isfinite(reports[-1].metrics["train/loss"])


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_the_resolved_dump_is_the_same_experiment(path: Path) -> None:
    experiment = Experiment.load(path)
    assert Experiment.parse(experiment.dump(), "dump") == experiment


@pytest.mark.parametrize(("name", "dropout", "smoothing"), [("notes_recipe", 0.2, 0.1), ("notes_recipe_small", 0.1, 0)])
def test_notes_recipe_has_the_numbers_of_the_notes(name: str, dropout: float, smoothing: float) -> None:
    experiment = Experiment.load(REPOSITORY / f"experiments/{name}.yaml")
    values = experiment.model_dump()
    assert values["model"]["dropout"] == dropout and values["loss"]["label_smoothing"] == smoothing
    assert values["optimizer"]["weight_decay"] == 4e-5 and values["training"]["batch_size"] == 1024
    lr = experiment.schedule.build(experiment.optimizer.lr, 150, 1)
    expected = {0: 0.1, 1: 0.16, 2: 0.22, 3: 0.28, 4: 0.34, 5: 0.4, 50: 0.312237, 100: 0.106318}
    assert {epoch: round(lr(epoch), 6) for epoch in expected} == expected


def recipe(goal: int) -> tuple[Experiment, list[dict[str, Any]]]:
    path = REPOSITORY / f"experiments/cifar10_{goal}.yaml"
    data = "data={name: synthetic, examples: 5000, shape: [3, 32, 32]}"
    experiment = Experiment.load(path, [data, "model.whitening.images=20", "training.compile=false"])
    trainer = build(experiment, "cpu")
    trainer.close()
    return experiment, trainer.parts.optimizer.param_groups


def test_the_recipe_for_96_percent_steps_and_decays_as_published() -> None:
    """The published numbers are of a step of Nesterov's momentum, for a loss that is a sum over 1,024 examples."""
    experiment, groups = recipe(96)
    optimizer = experiment.optimizer
    assert isinstance(optimizer, SGD) and experiment.training.batch_size == 1024
    step = 1 + 1 / (1 - optimizer.momentum)
    assert optimizer.lr * step == pytest.approx(9.0, rel=1e-3)
    for group in groups:
        scale = group.get("lr_scale", 1.0)
        assert optimizer.lr * scale * group["weight_decay"] * step == pytest.approx(0.012, rel=1e-3)
    assert [len(group["params"]) for group in groups if group.get("lr_scale") == 64.0] == [9]


def test_the_recipe_for_94_percent_steps_and_decays_as_published() -> None:
    """The published loss is a sum over 2,000 examples; its logits are divided by 256 instead of 9."""
    experiment, groups = recipe(94)
    assert experiment.optimizer.lr == 0.24 and experiment.training.batch_size == 2000
    found = {len(group["params"]): group for group in groups if not group["matrix"] and "epochs" not in group}
    matrices = [group for group in groups if group["matrix"]]
    assert [len(group["params"]) for group in matrices] == [6] and matrices[0]["weight_decay"] == 0
    for count, lr in {6: 0.053 * 2000, 1: 0.67 * 2000 * (9 / 256) ** 2}.items():
        rate = 0.24 * found[count]["lr_scale"]
        assert rate == pytest.approx(lr, rel=1e-3) and rate * found[count]["weight_decay"] == pytest.approx(
            2e-6 * 2000, rel=1e-3
        )
    (offsets,) = (group for group in groups if "epochs" in group)
    assert offsets["epochs"] == (0, 3) and len(offsets["params"]) == 1


def test_the_erased_square_has_12_pixels_a_side() -> None:
    erasing = Experiment.load(REPOSITORY / "experiments/cifar10_96.yaml").augmentation[2]
    context = AugmentationContext(ImageShape(1, 32, 32), Classes(list("0123456789")), 0, torch.zeros(1), torch.ones(1))
    ones, rows = torch.ones(50, 1, 32, 32), torch.arange(50)
    batch = erasing.build(context)(Batch(ones, rows, rows, rows), Draws(0, 0, torch.device("cpu")))
    holes = batch.inputs[:, 0] == 0
    assert set(holes.sum((1, 2)).tolist()) == {144}
    assert set(holes.any(1).sum(1).tolist()) == {12}


@pytest.mark.parametrize(
    ("name", "loader"), [("caltech12", "streaming"), pytest.param("flowers", "resident", marks=pytest.mark.slow)]
)
def test_real_photos_train(name: str, loader: str, shared_data: Path) -> None:
    overrides = [f"data.root={shared_data / 'folder' / name}", "data.size=32", "model=convnet", "training.epochs=1"]
    overrides += [f"data.loader={loader}", "data.workers=0", "training.limit_batches=4", "training.batch_size=16"]
    trainer = build(Experiment.load(REPOSITORY / "experiments/photos.yaml", overrides), "cpu")
    reports = [event for event in trainer.run() if isinstance(event, EpochReport)]
    trainer.close()
    assert np.isfinite(reports[-1].metrics["validation/loss"])
