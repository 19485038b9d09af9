"""`initialize_from` between data with other classes: rows of the head go by the names of the classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dltrain import Experiment, Trainer, build
from dltrain.data.types import ImageShape
from dltrain.engine.transfer import class_dimensions
from dltrain.models import Model
from dltrain.runs import checkpoints

FIRST = ["ant", "bee", "cat"]


def trainer(folder: Path, classes: list[str], model: str = "{name: mlp, hidden: [8]}", **changes: Any) -> Trainer:
    draw, labels = np.random.default_rng(0), np.arange(60) % len(classes)
    images = draw.integers(0, 255, (60, 8, 8), dtype=np.uint8)
    path = folder / f"{'-'.join(classes)}.npz"
    np.savez(path, images=images, labels=labels, classes=np.array(classes))
    text = f"data: {{name: arrays, path: '{path}'}}\nmodel: {model}\ntraining: {{steps: 3, batch_size: 16}}\n"
    experiment = Experiment.parse(text)
    return build(experiment.override_all(changes) if changes else experiment, "cpu")


def source(folder: Path, **options: Any) -> tuple[Path, dict[str, torch.Tensor]]:
    """A checkpoint of a training on FIRST, and its weights."""
    first = trainer(folder, FIRST, **options)
    for _ in first.run():
        pass
    checkpoints.save(first.state_dict(), folder / "first.pt")
    return folder / "first.pt", first.parts.model.state_dict()


def test_rows_go_by_the_names_of_their_classes(tmp_path: Path) -> None:
    path, weights = source(tmp_path)
    classes = ["cat", "dog", "ant", "eel"]
    plain, second = (trainer(tmp_path, classes, initialize_from=name) for name in (None, str(path)))
    own, start = second.parts.model.state_dict(), plain.parts.model.state_dict()
    *body, weight, bias = own
    assert all(torch.equal(own[name], weights[name]) for name in body)
    for name in (weight, bias):
        for row, label in enumerate(classes):
            expected = weights[name][FIRST.index(label)] if label in FIRST else start[name][row]
            assert torch.equal(own[name][row], expected), (name, label)
    notes = "\n".join(second.notes)
    assert f"the rows of 2 of 4 classes matched by name: {weight}, {bias}" in notes
    assert "2 classes that are new, their rows left as they were: dog, eel" in notes
    assert "1 classes of the checkpoint that are not in this data: bee" in notes


def test_the_same_classes_in_another_order(tmp_path: Path) -> None:
    path, weights = source(tmp_path)
    second = trainer(tmp_path, FIRST[::-1], initialize_from=str(path))
    own = second.parts.model.state_dict()
    weight = [*own][-2]
    assert torch.equal(own[weight], weights[weight].flip(0))
    assert any("3 of 3 classes matched by name" in note for note in second.notes)
    third = trainer(tmp_path, FIRST, initialize_from=str(path))
    assert all(torch.equal(own, weights[name]) for name, own in third.parts.model.state_dict().items())
    assert not any("matched by name" in note for note in third.notes)


def test_wholly_other_classes_keep_the_start_of_their_rows(tmp_path: Path) -> None:
    path, weights = source(tmp_path)
    second = trainer(tmp_path, ["x", "y", "z"], initialize_from=str(path))
    own, start = second.parts.model.state_dict(), trainer(tmp_path, ["x", "y", "z"]).parts.model.state_dict()
    weight = [*own][-2]
    assert torch.equal(own[weight], start[weight]) and not torch.equal(own[weight], weights[weight])
    assert any(f"of other classes, left as they were: {weight}" in note for note in second.notes)
    wider = trainer(tmp_path, FIRST, "{name: mlp, hidden: [8, 8]}", initialize_from=str(path))
    assert any("of another shape, not loaded" in note or "left as they were" in note for note in wider.notes)


def test_the_ramp_of_a_new_training_starts_anew(tmp_path: Path) -> None:
    model = "{name: convnet, widths: [4, 4], drop_block: {rate: 0.1, size: 3, ramp: 50}, norm: batch_renorm}"
    path, _ = source(tmp_path, model=model)
    own = trainer(tmp_path, FIRST, model, initialize_from=str(path)).parts.model.state_dict()
    assert {int(value) for name, value in own.items() if name.endswith("steps")} == {0}
    assert {int(value) for name, value in own.items() if name.endswith("batches")} == {3}


@pytest.mark.parametrize(
    ("model", "size", "heads"),
    [
        ("nin_cifar", 32, 1), ({"name": "googlenet", "auxiliary": 0.3}, 224, 3),
        ({"name": "torchvision/googlenet", "auxiliary": 0.3}, 224, 3), ("timm/vit_tiny_patch16_224", 224, 1),
    ],
)  # fmt: skip
def test_heads_are_found_in_any_network(model: Any, size: int, heads: int) -> None:
    section: Any = Model.parse(model)
    with torch.device("meta"):
        own = section.make(ImageShape(3, size, size), 10).state_dict()
    found = class_dimensions(own, 10, lambda classes: section.make(ImageShape(3, size, size), classes))
    assert len([key for key in found if key.endswith("weight")]) == heads and set(found.values()) == {0}
    assert all(own[key].shape[0] == 10 for key in found)
