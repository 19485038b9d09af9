"""`initialize_from` between data with other classes: rows of the head go by the names of the classes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dltrain import ConfigError, Experiment, Trainer, build
from dltrain.commands.fit import fit
from dltrain.console.display import Display
from dltrain.data.types import ImageShape
from dltrain.engine.transfer import class_dimensions
from dltrain.models import Model
from dltrain.planning.plan import plan
from dltrain.planning.text import render
from dltrain.runs import checkpoints
from dltrain.tasks.outputs import Logits

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
    notes = "\n".join(map(str, second.notes))
    assert f"the rows of 2 of 4 classes matched by name: {weight}, {bias}" in notes
    assert "2 classes that are new, their rows left as they were: dog, eel" in notes
    assert "1 classes of the checkpoint that are not in this data: bee" in notes


def test_the_same_classes_in_another_order(tmp_path: Path) -> None:
    path, weights = source(tmp_path)
    second = trainer(tmp_path, FIRST[::-1], initialize_from=str(path))
    own = second.parts.model.state_dict()
    weight = [*own][-2]
    assert torch.equal(own[weight], weights[weight].flip(0))
    assert any("3 of 3 classes matched by name" in note for note in map(str, second.notes))
    third = trainer(tmp_path, FIRST, initialize_from=str(path))
    assert all(torch.equal(own, weights[name]) for name, own in third.parts.model.state_dict().items())
    assert not any("matched by name" in note for note in map(str, third.notes))


def test_wholly_other_classes_keep_the_start_of_their_rows(tmp_path: Path) -> None:
    path, weights = source(tmp_path)
    second = trainer(tmp_path, ["x", "y", "z"], initialize_from=str(path))
    own, start = second.parts.model.state_dict(), trainer(tmp_path, ["x", "y", "z"]).parts.model.state_dict()
    weight = [*own][-2]
    assert torch.equal(own[weight], start[weight]) and not torch.equal(own[weight], weights[weight])
    assert any(f"of other classes, left as they were: {weight}" in note for note in map(str, second.notes))
    wider = trainer(tmp_path, FIRST, "{name: mlp, hidden: [8, 8]}", initialize_from=str(path))
    assert any("of another shape, not loaded" in note or "left as they were" in note for note in map(str, wider.notes))


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
        own = section.make(ImageShape(3, size, size), Logits(10)).state_dict()
    found = class_dimensions(own, 10, lambda classes: section.make(ImageShape(3, size, size), Logits(classes)))
    assert len([key for key in found if key.endswith("weight")]) == heads and set(found.values()) == {0}
    assert all(own[key].shape[0] == 10 for key in found)


def foreign(folder: Path, form: str) -> tuple[Path, dict[str, torch.Tensor]]:
    """The weights of a network as another library keeps them in a file."""
    weights = {
        name: torch.randn_like(tensor) for name, tensor in trainer(folder, FIRST).parts.model.state_dict().items()
    }
    path = folder / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(weights, path)
    elif form == "nested":
        torch.save({"epoch": 3, "state_dict": weights}, path)
    elif form == "wrapped":
        torch.save({f"module.{name}": tensor for name, tensor in weights.items()}, path)
    elif form == "part":
        torch.save({"decoder.w": torch.zeros(2), **{f"encoder.{name}": t for name, t in weights.items()}}, path)
    else:
        torch.save(weights, path)
    return path, weights


@pytest.mark.parametrize("form", ["plain", "safetensors", "nested", "wrapped", "part"])
def test_a_state_dict_of_another_library_is_loaded_by_name(form: str, tmp_path: Path) -> None:
    path, weights = foreign(tmp_path, form)
    start = {"path": str(path), "part": "encoder"} if form == "part" else str(path)
    made = trainer(tmp_path, FIRST, initialize_from=start)
    own = made.parts.model.state_dict()
    assert all(torch.equal(own[name], weights[name]) for name in own)
    assert f"initialized from {path}: {len(own)} of {len(own)} tensors loaded" in map(str, made.notes)


def test_the_run_and_the_plan_say_exactly_what_was_loaded(tmp_path: Path) -> None:
    path, weights = source(tmp_path)
    classes = ["cat", "dog", "ant"]
    wider = "{name: mlp, hidden: [8, 8]}"
    second = trainer(tmp_path, classes, wider, initialize_from=str(path))
    experiment = Experiment.parse(second.about["experiment"])
    code, run = fit(experiment, tmp_path / "run", "cpu", Display(quiet=True))
    told = run.read_json("environment.json")["initialized"]
    *body, weight, bias = weights
    own = second.parts.model.state_dict()
    assert code == 0 and told["file"] == str(path) and told["loaded"] == body
    assert [name for name in own if name not in weights] == told["not_in_the_file"] == [*own][-2:]
    assert sorted(told["of_another_shape"] + told["resized"] + told["of_other_classes"]) == sorted([weight, bias])
    assert told["not_in_the_model"] == []
    assert f"initialized, loaded: {', '.join(body)}" in (run.path / "log.txt").read_text()
    planned = plan(experiment, "cpu")
    assert planned["initialized"] == told == run.read_json("plan.json")["initialized"]
    assert any(text.startswith(f"initialized from {path}: 2 of 6 tensors loaded") for text in planned["warnings"])
    shown = " ".join(render(planned).split())
    assert f"{path.name}: {len(body)} loaded" in shown, shown


def test_weights_of_another_architecture_name_both_sides(tmp_path: Path) -> None:
    path, _ = source(tmp_path)
    other = "{name: resnet18, stem: small}"
    text = f"data: {{name: arrays, path: '{tmp_path}/{'-'.join(FIRST)}.npz'}}\nmodel: {other}\n"
    text += f"initialize_from: {{run: '{path}'}}\ntraining: {{batch_size: 16}}\n"
    experiment = Experiment.parse(text, "e.yaml")
    for start in (plan, build):
        with pytest.raises(ConfigError) as caught:
            start(experiment, "cpu")  # type: ignore[operator]
        found = str(caught.value)
        assert f"no weight of {path} fits model `resnet18`" in found and "e.yaml:3" in found
        assert "it was trained with model `mlp`; it has 1.weight (8x64), 1.bias (8), 4.weight (3x8)" in found
        assert "the model has conv1.weight (64x1x3x3)" in found and "of 122 tensors" in found


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("code ran",))


@pytest.mark.parametrize(
    ("content", "part", "words"),
    [
        ({"a.weight": torch.zeros(3)}, None, "no weight of"),
        ({"a.weight": torch.zeros(3)}, "encoder", "has no part `encoder`; its parts: a"),
        ([torch.zeros(3)], None, "holds no weights by name"),
        (
            {"w": Evil()},
            None,
            "can be opened safely: it holds more than tensors and plain values, or is of another kind\n",
        ),
        (b"not a zip", None, "no state dict that can be opened safely"),
        (pickle.dumps({"w": Evil()}, protocol=4), None, "safely: it holds more than tensors and plain values"),
    ],
    ids=["architecture", "part", "list", "code", "bytes", "pickle"],
)
def test_files_without_fitting_weights_are_refused_at_the_key(
    content: Any, part: str | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    start = str(path) if part is None else {"path": str(path), "part": part}
    with pytest.raises(ConfigError) as caught:
        trainer(tmp_path, FIRST, initialize_from=start)
    assert words in str(caught.value) and str(path) in str(caught.value)
    assert "code ran" not in capsys.readouterr().out


def test_a_mistake_in_the_mapping_is_said_at_its_place() -> None:
    text = "data: digits\nmodel: mlp\ninitialize_from: {pat: x, part: 3}\n"
    with pytest.raises(ConfigError) as caught:
        Experiment.parse(text, "e.yaml")
    assert [d.message for d in caught.value.diagnostics] == [
        "unknown key `pat` in `initialize_from`", "`initialize_from.part` must be text, not 3",
    ]  # fmt: skip
