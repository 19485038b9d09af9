"""`dltrain eval`: the numbers of training, again and again, and what can stand in their way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluating import invoke, measured

from dltrain.runs import checkpoints
from dltrain.runs.run import Run

TEXT = """
data: {{name: arrays, path: {data}, validation: 0.2}}
augmentation: [{{name: random_crop, padding: 1}}]
model: {{name: convnet, widths: [8, 16], dropout: 0.2}}
optimizer: {{name: sgd, lr: 0.1, momentum: 0.9}}
training: {{epochs: 4, batch_size: 32, average: {{name: ema, decay: 0.9}}}}
"""
CLASSES = ["ant", "bee", "cat", "dog", "eel", "fox"]


def save_images(path: Path, **changes: Any) -> None:
    """Six classes of noisy 8x8 images, two pixels of a row darker in each."""
    random = np.random.default_rng(0)
    labels = np.arange(240) % 6
    images = random.integers(0, 256, (240, 8, 8))
    images[np.arange(240), labels] //= 4
    values = {"images": images.astype(np.uint8), "labels": labels, "classes": np.array(CLASSES)}
    np.savez(path, **{**values, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    save_images(folder / "images.npz")
    (folder / "tiny.yaml").write_text(TEXT.format(data=folder / "images.npz"))
    result = invoke("fit", folder / "tiny.yaml", "--runs", folder)
    assert result.exit_code == 0, result.stderr
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run in another folder, free to be damaged."""
    return Path(shutil.copytree(trained / "tiny/001", tmp_path / "copied"))


def test_json_has_every_measure(run: Path) -> None:
    found = measured(run)
    assert found["split"] == "test"
    assert found["examples"] == 48
    matrix = np.array(found["confusion_matrix"])
    assert matrix.sum() == 48 and (matrix.sum(1) == 8).all()
    assert found["accuracy"] == np.trace(matrix) / 48
    assert found["accuracy"] <= found["top5_accuracy"] <= 1
    assert [row["class"] for row in found["per_class"]] == CLASSES
    assert {"precision", "recall", "f1", "support"} < set(found["per_class"][0])
    assert found["loss"] > 0 and 0 <= found["ece"] <= 1
    recorded = json.loads((run / "eval/test.json").read_text())
    assert {key: recorded[key] for key in found} == found


def test_the_table_says_the_same(run: Path) -> None:
    found, result = measured(run), invoke("eval", run)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"{run / 'checkpoints/best.pt'}, test"
    assert f"{found['accuracy']:.4f}" in lines[2]
    assert all(any(line.startswith(name) for line in lines) for name in CLASSES)


def test_the_same_number_at_every_repetition(run: Path) -> None:
    first, second = measured(run), measured(run)
    for key in set(first) - {"seconds"}:
        assert first[key] == second[key]


@pytest.mark.parametrize("which", ["best", "last"])
def test_validation_gives_the_numbers_of_training(run: Path, which: str) -> None:
    result = json.loads((run / "result.json").read_text())[which]
    found = measured(run, "--split", "validation", "--checkpoint", which)
    assert found["accuracy"] == result["validation/accuracy"]
    assert found["loss"] == pytest.approx(result["validation/loss"], rel=1e-6)
    assert found["step"] == result["step"]


def test_a_pretrained_size_and_a_folder_agree_with_training(tmp_path: Path) -> None:
    """Files of mixed sizes, cut by evaluation's rule; a loss with smoothing; no averaged weights."""
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(60):
        pixels = random.integers(0, 256, (20 + number % 7, 24, 3)).astype(np.uint8)
        pixels[:, :, number % 3] //= 3
        file = tmp_path / "photos" / "abc"[number % 3] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    (tmp_path / "photos.yaml").write_text(
        f"data: {{name: image_folder, root: {tmp_path / 'photos'}, size: 16, validation: 0.2}}\n"
        "augmentation: [{name: random_resized_crop, scale: [0.5, 1.0]}]\n"
        "model: {name: convnet, widths: [8]}\nloss: {name: cross_entropy, label_smoothing: 0.1}\n"
        "training: {epochs: 2, batch_size: 7}\n"
    )
    assert invoke("fit", tmp_path / "photos.yaml", "--runs", tmp_path / "runs").exit_code == 0
    run = tmp_path / "runs/photos/001"
    result = json.loads((run / "result.json").read_text())["best"]
    found = measured(run, "--split", "validation")
    assert found["accuracy"] == result["validation/accuracy"]
    assert found["loss"] == pytest.approx(result["validation/loss"], rel=1e-6)
    assert found["examples"] == 9
    streamed = measured(run, "data.loader=streaming", "data.workers=0", "--split", "validation")
    assert streamed["loss"] == found["loss"]


def test_averaged_weights_are_measured(run: Path) -> None:
    before = measured(run)["loss"]
    state = checkpoints.load(run / "checkpoints/best.pt")
    for tensor in state["model"].values():
        if tensor.is_floating_point():
            tensor.zero_()
    checkpoints.save(state, run / "checkpoints/best.pt")
    assert measured(run)["loss"] == before


def test_a_checkpoint_file_is_as_good_as_a_run(run: Path, tmp_path: Path) -> None:
    from_run = measured(run, "--checkpoint", "last")
    assert measured(run / "checkpoints/last.pt")["loss"] == from_run["loss"]
    (tmp_path / "elsewhere").mkdir()
    alone = Path(shutil.copy(run / "checkpoints/last.pt", tmp_path / "elsewhere/mine.pt"))
    assert measured(alone)["loss"] == from_run["loss"]
    assert sorted(p.name for p in alone.parent.iterdir()) == ["mine.pt"]  # nothing is written beside it


def test_a_run_without_best_is_measured_at_its_last(run: Path) -> None:
    (run / "checkpoints/best.pt").unlink()
    assert measured(run)["checkpoint"] == "last.pt"


def test_data_without_a_test_split(trained: Path, tmp_path: Path) -> None:
    overrides = ["data.test=0", "training.epochs=1"]
    assert invoke("fit", trained / "tiny.yaml", *overrides, "--runs", tmp_path).exit_code == 0
    result = invoke("eval", tmp_path / "tiny/001")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "data `arrays` has no test split; use --split validation" in result.stderr
    assert measured(tmp_path / "tiny/001", "--split", "validation")["examples"] == 48


def test_moved_data(run: Path, trained: Path, tmp_path: Path) -> None:
    expected = measured(run)
    state = checkpoints.load(run / "checkpoints/best.pt")
    state["about"]["experiment"] = state["about"]["experiment"].replace(str(trained / "images.npz"), "gone.npz")
    checkpoints.save(state, run / "checkpoints/best.pt")
    assert measured(run)["accuracy"] == expected["accuracy"]  # the run's experiment.yaml knows where it is
    text = (run / "experiment.yaml").read_text()
    (run / "experiment.yaml").write_text(text.replace(str(trained / "images.npz"), "gone.npz"))
    result = invoke("eval", run)
    assert result.exit_code == 2 and "gone.npz" in result.stderr
    moved = shutil.copy(trained / "images.npz", tmp_path / "moved.npz")
    assert measured(run, f"data.path={moved}")["accuracy"] == expected["accuracy"]
    result = invoke("eval", run, "model.dropout=0.1")
    assert result.exit_code == 2 and "all but `data`" in result.stderr


def test_other_data_is_measured_with_a_warning(run: Path, tmp_path: Path) -> None:
    save_images(tmp_path / "other.npz", labels=(np.arange(240) + 1) % 6)
    result = invoke("eval", run, f"data.path={tmp_path / 'other.npz'}")
    assert result.exit_code == 0
    assert "warning: this is not the data of the training" in result.stderr


def test_changed_classes_are_refused(run: Path, trained: Path, tmp_path: Path) -> None:
    save_images(tmp_path / "other.npz", classes=np.array(["ant", "bee", "cat", "dog", "eel", "owl"]))
    result = invoke("eval", run, f"data.path={tmp_path / 'other.npz'}")
    assert result.exit_code == 2
    assert "the network was not trained on these classes of the data: `owl`" in result.stderr
    assert "it knows `ant`, `bee`, `cat`, `dog`, `eel`, `fox`" in result.stderr


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    result = invoke("eval", tmp_path / "001")
    assert result.exit_code == 2 and "there is no run or checkpoint" in result.stderr


def test_a_result_that_cannot_be_recorded_is_still_printed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Run, "write_json", full)
    result = invoke("eval", run, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["examples"] == 48
    assert "could not be recorded" in result.stderr and "No space left on device" in result.stderr


def test_evaluating_does_not_disturb_torch(run: Path) -> None:
    threads = torch.get_num_threads()
    measured(run)
    assert torch.get_num_threads() == threads
