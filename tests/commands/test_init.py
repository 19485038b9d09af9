"""`dltrain init`: what it sees in data, and that what it writes is right and trains."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rationing import some
from typer.testing import CliRunner, Result

import dltrain.commands.init as init_module
from dltrain.cli import app
from dltrain.experiment.experiment import Experiment

SHARED = Path(__file__).parents[3] / "shared" / "data"


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture(autouse=True)
def weights(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Whether pretrained weights can be had; no test asks the network, or measures how long a training takes."""
    state = {"there": False}
    monkeypatch.setattr(init_module, "seconds_of", lambda _: None)
    monkeypatch.setattr(init_module, "pretrained_available", lambda: state["there"])
    return state


def save_photos(
    root: Path, counts: Mapping[str, int], size: tuple[int, int] = (120, 90), mode: str = "RGB", suffix: str = "jpg"
) -> Path:
    """`counts[folder]` noisy images in each folder, of sizes around (width, height)."""
    random = np.random.default_rng(0)
    for number, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            shape = (size[1] + index % 5, size[0] - index % 3, 3)
            pixels = random.integers(0, 256, shape).astype(np.uint8) // (1 + number % 3)
            Image.fromarray(pixels).convert(mode).save(root / folder / f"{index:03d}.{suffix}")
    return root


def written(path: Path, target: Path, *options: str) -> tuple[Experiment, str, Result]:
    """The experiment that init writes for `path`, its text, and what was printed."""
    result = invoke("init", path, "--output", target, *options)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [str(target)]
    assert invoke("check", target).exit_code == 0
    return Experiment.load(target), target.read_text(), result


def test_class_folders(tmp_path: Path) -> None:
    root = save_photos(tmp_path / "pets", {"cat": 30, "dog": 20})
    experiment, text, result = written(root, tmp_path / "pets.yaml")
    assert "36 training images of 2 classes (14 to 22 a class), 4 validation, 10 test; colour" in text
    assert "36 training images of 2 classes (14 to 22 a class)" in result.stderr
    assert "118 to 120 x 90 to 94 pixels" in text
    assert experiment.data.model_dump()["root"] == str(root)
    assert experiment.model.name == "convnet"
    assert experiment.sweep is not None
    comments = [line for line in text.splitlines() if "#" in line]
    assert len(comments) >= 8


def test_split_folders_with_and_without_test(tmp_path: Path) -> None:
    counts = {f"{split}/{name}": 8 for split in ("train", "val") for name in ("cat", "dog", "eel")}
    root = save_photos(tmp_path / "pets", counts)
    assert (
        "24 training images of 3 classes (8 a class), 24 validation, no test" in written(root, tmp_path / "a.yaml")[1]
    )
    save_photos(root, {"test/cat": 2, "test/dog": 2, "test/eel": 2})
    assert "24 validation, 6 test" in written(root, tmp_path / "b.yaml")[1]


def test_small_and_grey_files(tmp_path: Path) -> None:
    root = save_photos(tmp_path / "signs", {"a": 20, "b": 20}, (20, 24), "L", "png")
    experiment, text, _ = written(root, tmp_path / "signs.yaml")
    assert "grey" in text
    data = experiment.data.model_dump()
    assert data["channels"] == 1 and data["size"] == 19
    assert [entry.name for entry in experiment.augmentation] == ["random_crop"]


def test_grey_photos_get_no_colour_changes(tmp_path: Path, weights: dict[str, bool]) -> None:
    weights["there"] = True
    root = save_photos(tmp_path / "xray", {"a": 20, "b": 20}, mode="L")
    experiment, _, _ = written(root, tmp_path / "xray.yaml")
    assert experiment.data.known_channels == 1
    assert "hue" not in experiment.augmentation[2].model_fields_set
    assert not experiment.model.model_dump().get("pretrained")


def test_arrays(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (200, 28, 28)).astype(np.uint8)
    np.savez(tmp_path / "glyphs.npz", images=images, labels=np.arange(200) % 4)
    experiment, text, _ = written(tmp_path / "glyphs.npz", tmp_path / "glyphs.yaml")
    assert "28 x 28 pixels" in text
    assert experiment.data.name == "arrays"
    assert experiment.data.size is None


@pytest.mark.parametrize("there", [True, False])
def test_pretrained_weights_when_they_can_be_had(tmp_path: Path, weights: dict[str, bool], there: bool) -> None:
    weights["there"] = there
    root = save_photos(tmp_path / "pets", {"cat": 20, "dog": 20})
    experiment, _, result = written(root, tmp_path / "a.yaml")
    assert bool(experiment.model.model_dump().get("pretrained")) is there
    assert ("pretrained weights cannot be downloaded here" in result.stderr) is not there
    chosen, _, _ = written(root, tmp_path / "b.yaml", "--no-pretrained" if there else "--pretrained")
    assert bool(chosen.model.model_dump().get("pretrained")) is not there
    assert experiment.training.epochs is not None and chosen.training.epochs is not None


@pytest.mark.parametrize("rarest", [2, 3, 4, 7])
def test_few_images_of_a_class_still_fill_every_split(tmp_path: Path, rarest: int) -> None:
    root = save_photos(tmp_path / "birds", {"wren": 40, "ibis": rarest}, (70, 70))
    experiment, text, result = written(root, tmp_path / "birds.yaml")
    splits = experiment.data.load()
    assert splits.validation is not None
    assert set(splits.validation.targets.tolist()) == {0, 1} and set(splits.train.targets.tolist()) == {0, 1}
    assert "`ibis` has few images" in text and "`ibis` has few images" in result.stderr


def test_a_rare_class_is_pointed_out(tmp_path: Path) -> None:
    root = save_photos(tmp_path / "birds", {"wren": 100, "ibis": 12}, (70, 70))
    assert "class `ibis` has few images" in written(root, tmp_path / "birds.yaml")[1]


@pytest.mark.parametrize("name", some(['it\'s "quoted"', "my, photos}", "größe: 1 #x"], 3))
def test_any_folder_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    save_photos(Path(name), {"a": 10, "b": 10}, (70, 70))
    result = invoke("init", name)
    assert result.exit_code == 0, result.stderr
    target = Path(result.stdout.strip())
    assert target.parent == Path("experiments")
    assert Experiment.load(target).data.model_dump()["root"] == name


def test_damaged_files_are_pointed_out(tmp_path: Path) -> None:
    root = save_photos(tmp_path / "pets", {"cat": 20, "dog": 20})
    (root / "cat/003.jpg").write_bytes(b"no image")
    (root / "cat/004.jpg").write_bytes(b"none either")
    result = written(root, tmp_path / "pets.yaml")[2]
    assert "2 of the files cannot be read, such as " in result.stderr


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    root = save_photos(tmp_path / "pets", {"cat": 10, "dog": 10}, (70, 70))
    (tmp_path / "pets.yaml").write_text("mine")
    result = invoke("init", root, "-o", tmp_path / "pets.yaml")
    assert result.exit_code == 2
    assert "exists already" in result.stderr and result.stdout == ""
    assert (tmp_path / "pets.yaml").read_text() == "mine"


def unusable(tmp_path: Path, case: str) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    if case == "one class":
        save_photos(root, {"cat": 5}, (70, 70))
    elif case == "flat":
        save_photos(tmp_path, {"data": 7}, (70, 70))
    elif case == "single images":
        save_photos(root, {"a": 10, "b": 1}, (70, 70))
    elif case == "damaged":
        for name in ("a/1.jpg", "a/2.jpg", "a/3.jpg", "b/1.jpg", "b/2.jpg", "b/3.jpg"):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_bytes(b"x")
    elif case == "text":
        (root / "notes.md").touch()
        return root / "notes.md"
    elif case == "array":
        np.savez(root / "images.npz", pictures=np.zeros(3))
        return root / "images.npz"
    elif case == "absent":
        return root / "nowhere"
    return root


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no images", "there are no images in class folders in"),
        ("one class", "a classifier needs two classes or more, and the data has ['cat']"),
        ("flat", "7 images lie directly in"),
        ("single images", "split would have no example of class `b`"),
        ("damaged", "6 errors"),
        ("text", "is neither a folder of class folders nor an .npz file"),
        ("array", "it has no `images`"),
        ("absent", "there is nothing at"),
    ],
)
def test_unusable_data(tmp_path: Path, case: str, message: str) -> None:
    result = invoke("init", unusable(tmp_path, case), "--output", tmp_path / "out.yaml")
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "out.yaml").exists()


def test_what_is_written_trains(tmp_path: Path) -> None:
    """The first epochs of each recipe, as it stands."""
    root = save_photos(tmp_path / "pets", {"cat": 24, "dog": 24}, (70, 70))
    images = np.random.default_rng(0).integers(0, 256, (150, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "dots.npz", images=images, labels=np.arange(150) % 3)
    for path in (root, tmp_path / "dots.npz"):
        target = tmp_path / f"{path.stem}.yaml"
        written(path, target)
        result = invoke("fit", target, "training.epochs=1", "training.limit_batches=1", "--runs", tmp_path / "runs")
        assert result.exit_code == 0, result.stderr


@pytest.mark.slow
def test_real_digits_are_learnt(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images * 15.9375).round().astype(np.uint8)
    np.savez(tmp_path / "digits.npz", images=images, labels=digits.target)
    target = tmp_path / "digits.yaml"
    written(tmp_path / "digits.npz", target)
    assert invoke("fit", target, "training.epochs=6", "--runs", tmp_path).exit_code == 0
    result = invoke("eval", tmp_path / "digits/001", "--json")
    assert json.loads(result.stdout)["accuracy"] > 0.95


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "folder").is_dir(), reason=f"there is no {SHARED / 'folder'}")
def test_real_photos(tmp_path: Path) -> None:
    _, flowers, _ = written(SHARED / "folder/flowers", tmp_path / "flowers.yaml")
    assert "200 training images of 5 classes (40 a class), 50 validation, no test; colour" in flowers
    _, caltech, _ = written(SHARED / "folder/caltech12", tmp_path / "caltech.yaml")
    assert "576 training images of 12 classes (48 a class), 144 validation" in caltech


@pytest.mark.parametrize(
    "name", some(["null", "true", "12", ".5", "no", "~", "$x", "a b", "x: y", "é", "010", "#1", "[x]"], 4)
)
def test_a_folder_of_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_photos(tmp_path / name, {"a": 10, "b": 10}, (70, 70))
    result = invoke("init", name, "--no-pretrained", "--output", "out.yaml")
    assert result.exit_code == 0, result.stderr
    assert Experiment.load("out.yaml").data.model_dump()["root"] == name


@pytest.mark.parametrize("name", ["x.json", "folder"])
def test_who_brings_text_is_told_what_dltrain_trains_on(name: str, tmp_path: Path) -> None:
    for file in ("a/1.csv", "a/2.csv", "b/1.txt", "b/2.txt"):
        (tmp_path / "folder" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / file).write_text("x,y")
    (tmp_path / name).write_text("x,y\n1,2\n") if name != "folder" else None
    result = invoke("init", tmp_path / name)
    assert result.exit_code == 2
    assert "dltrain trains on images" in result.stderr
