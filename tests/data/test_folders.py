"""Folders of images: which are splits, what is left out, and what cannot be seen."""

from __future__ import annotations

import os
import socket
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dltrain.cli import app
from dltrain.commands.predict import image_files
from dltrain.config import ConfigError
from dltrain.data.datasets import ImageFolder
from dltrain.data.types import Splits
from dltrain.errors import RunError

draw = np.random.default_rng(0)


def fill(folder: Path, *classes: str, count: int = 6, suffix: str = ".png") -> Path:
    """Different noise in each file."""
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.fromarray(draw.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(folder / name / f"{number}{suffix}")
    return folder


def load(root: Path, **options: Any) -> Splits:
    return ImageFolder(root=str(root), **{"validation": 0, **options}).load()


def refusal(root: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(root)
    return str(caught.value)


def sizes(splits: Splits) -> list[int]:
    return [len(part or []) for part in (splits.train, splits.validation, splits.test)]


# -- names of splits


@pytest.mark.parametrize(
    "names",
    [("Train", "VAL", "Test"), ("training", "validation", "testing"), ("train_images", "dev", "testSet"),
     ("seg_train", "Valid", "seg_test"), ("flowers_train", "flowers_val", "flowers_test"),
     ("images-train2017", "images-val2017", "test-data")],
)  # fmt: skip
def test_splits_by_other_names(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for name, count in zip(names, (8, 3, 2), strict=True):
        fill(tmp_path / name, "cat", "dog", count=count)
    splits = load(tmp_path)
    assert splits.classes == ["cat", "dog"] and sizes(splits) == [16, 6, 4]
    assert f"{names[0]} as the training split" in "\n".join(map(str, splits.notes))


@pytest.mark.parametrize("names", [("val", "test"), ("Testing",), ("dev", "cat"), ("valid", "x_train", "y_train")])
def test_splits_without_a_training_split_are_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        fill(tmp_path / name, "cat", "dog", count=2)
    message = refusal(tmp_path)
    assert str(tmp_path / names[0]) in message and ("rename" in message or "keep one" in message)
    result = CliRunner().invoke(app, ["init", str(tmp_path), "-o", str(tmp_path / "x.yaml")])
    assert result.exit_code == 2 and message.splitlines()[0] in result.stderr


def test_splits_without_class_folders_are_no_classes(tmp_path: Path) -> None:
    fill(tmp_path, "train", "test")
    assert "look like splits, and hold no class folders" in refusal(tmp_path)


def test_splits_inside_of_classes_are_not_mixed(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        fill(tmp_path / name, "train", "Test")
    message = refusal(tmp_path)
    assert f"{tmp_path / 'cat/Test'} and {tmp_path / 'cat/train'} look like splits inside of a class" in message
    assert str(tmp_path / "dog/train") in message


def test_data_one_folder_deeper_is_found(tmp_path: Path) -> None:
    fill(tmp_path / "zip/photos/train", "cat", "dog")
    fill(tmp_path / "zip/photos/val", "cat", "dog")
    message = refusal(tmp_path / "zip")
    assert "holds folders itself: train, val" in message and f"write `root: {tmp_path / 'zip/photos'}`" in message
    fill(tmp_path / "twice/train/train", "cat", "dog")
    assert f"move them into {tmp_path / 'twice/train'}" in refusal(tmp_path / "twice")


def test_a_test_folder_without_labels_is_spoken_of(tmp_path: Path) -> None:
    fill(tmp_path / "train", "cat", "dog")
    fill(tmp_path, "test")
    assert "images without labels are for `dltrain predict`" in refusal(tmp_path)


def test_parts_that_hold_the_same_classes_are_pointed_out(tmp_path: Path) -> None:
    for name in ("part1", "part2"):
        fill(tmp_path / name, "cat", "dog")
    (note,) = map(str, load(tmp_path, test=0).notes)
    assert "holds the same folders (cat, dog): are these the classes?" in note


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    fill(tmp_path, "bus", "train", "bullet_train")
    fill(tmp_path / "bullet_train", "night")
    assert load(tmp_path, test=0).classes == ["bullet_train", "bus", "train"]


def test_two_folders_for_one_split(tmp_path: Path) -> None:
    for name in ("train", "Training"):
        fill(tmp_path / name, "cat", "dog")
    assert "could be the training split; keep one" in refusal(tmp_path)


def test_what_lies_beside_the_splits_is_counted(tmp_path: Path) -> None:
    fill(tmp_path / "train", "cat", "dog")
    fill(tmp_path / "bus", "red", "blue", count=2)
    fill(tmp_path, ".", count=1)
    (tmp_path / "masks").mkdir()
    (note,) = map(str, load(tmp_path).notes)
    assert f"{tmp_path / 'bus'}/ (4 images)" in note and f"1 images directly in {tmp_path}" in note
    assert "masks" not in note


def test_shares_that_have_nothing_to_do_are_spoken_of(tmp_path: Path) -> None:
    for name in ("train", "val"):
        fill(tmp_path / name, "cat", "dog")
    said = "\n".join(map(str, load(tmp_path, validation=0.3, test=0.1).notes))
    assert "`validation: 0.3` does nothing: the data brings its validation split" in said
    assert "`test: 0.1` does nothing" in said and "there is none" in said
    assert not ImageFolder(root=str(tmp_path)).load().notes
    fill(tmp_path / "test", "cat", "dog")
    assert "`test: 0.1` does nothing: the data brings its test split" in "\n".join(
        map(str, load(tmp_path, test=0.1).notes)
    )


# -- links, permissions, files of other kinds


def test_every_image_once_however_links_go_round(tmp_path: Path) -> None:
    fill(tmp_path / "pets", "cat", "dog")
    for name, target in (("self", "."), ("again", "."), ("up", ".."), ("out", "../.."), ("dogs", "../dog")):
        (tmp_path / "pets/cat" / name).symlink_to(target)
    splits = load(tmp_path / "pets", test=0)
    assert splits.train.files is not None and sorted(splits.train.files.paths) == sorted(
        f"{name}/{number}.png" for name in ("cat", "dog") for number in range(6)
    )
    assert "left out: 5 links to a folder" in "\n".join(map(str, splits.notes))
    found = [path.relative_to(tmp_path / "pets") for path in image_files([tmp_path / "pets"])]
    assert len(found) == 12 and len({(tmp_path / "pets" / path).resolve() for path in found}) == 12


def test_a_class_that_is_a_link_has_the_links_name(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "zzz")
    fill(tmp_path / "pets", "bee")
    (tmp_path / "pets/ant").symlink_to("../elsewhere/zzz")
    assert load(tmp_path / "pets", test=0).classes == ["ant", "bee"]
    (tmp_path / "pets/wasp").symlink_to("bee")
    assert "classes `bee` and `wasp` are one folder" in refusal(tmp_path / "pets")


@pytest.mark.parametrize("place", ["cow", "cat/x.png", "cat/deeper", "val"])
def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path, place: str) -> None:
    fill(tmp_path, "cat", "dog")
    (tmp_path / place).symlink_to("/nowhere/at/all")
    message = refusal(tmp_path)
    assert f"the link {tmp_path / place} leads nowhere: there is no /nowhere/at/all" in message


def refuse_to_list(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As the operating system does for a folder without permission, whoever runs the tests."""
    scandir = os.scandir

    def guarded(path: str) -> Any:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)


@pytest.mark.parametrize("place", [".", "cat", "cat/deeper"])
def test_a_folder_without_permission_is_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    fill(tmp_path, "cat", "dog", "cat/deeper")
    refuse_to_list(monkeypatch, tmp_path / place)
    message = refusal(tmp_path)
    assert f"the folder {tmp_path / place} cannot be read: permission denied" in message and "empty" not in message


def test_everything_wrong_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "cat", "dog")
    (tmp_path / "emu").mkdir()
    (tmp_path / "emu/notes.heic").touch()
    (tmp_path / "dog/gone.png").symlink_to("/nowhere")
    refuse_to_list(monkeypatch, tmp_path / "cat")
    message = refusal(tmp_path)
    assert "class `emu` is empty" in message and "it holds 1 .heic" in message
    assert "gone.png" in message and "permission denied" in message and "3 errors" in message


def test_whatever_pillow_reads_is_read_and_the_rest_is_counted(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "dog")
    fill(tmp_path, "cat", count=2, suffix=".jfif")
    fill(tmp_path, "dog", count=2, suffix=".TGA")
    for name in ("a.txt", "b.txt", "c.heic", "none", ".hidden.txt"):
        (tmp_path / "cat" / name).touch()
    splits = load(tmp_path, test=0)
    assert len(splits.train) == 16
    assert "left out: 4 files that are no images by their names: 2 .txt, 1 without a suffix, 1 .heic" in map(
        str, splits.notes
    )


def test_pipes_and_sockets_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "cat", "dog")
    os.mkfifo(tmp_path / "cat/pipe.png")
    monkeypatch.chdir(tmp_path / "cat")  # a socket's path has to be short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("plug.png")
    splits = load(tmp_path, test=0)
    assert len(splits.train) == 12 and "left out: 2 pipes, sockets or devices" in "\n".join(map(str, splits.notes))
    assert len(list(image_files([tmp_path]))) == 12


# -- names


def test_accents_are_one_name_however_they_are_stored(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    fill(tmp_path / "train", composed, "a")
    fill(tmp_path / "test", decomposed, "a")
    splits = load(tmp_path)
    assert splits.classes == ["a", composed] and sizes(splits) == [12, 0, 12]
    try:
        (tmp_path / "train" / decomposed).mkdir()
    except FileExistsError:
        return  # this file system takes them for one name
    assert "two folders in" in refusal(tmp_path)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "dog", suffix=os.fsdecode(b"\xff.png"))
    assert len(load(tmp_path, test=0).train) == 12
    fill(tmp_path, os.fsdecode(b"caf\xe9"))
    assert "caf\\xe9 is not UTF-8" in refusal(tmp_path)


@pytest.mark.parametrize("command", ["fit", "init"])
def test_urls_are_called_that(tmp_path: Path, command: str) -> None:
    text = "data: {name: image_folder, root: 'https://example.com/pets'}\nmodel: mlp\n"
    (tmp_path / "pets.yaml").write_text(text)
    arguments = {"fit": ["fit", str(tmp_path / "pets.yaml")], "init": ["init", "https://example.com/pets"]}
    result = CliRunner().invoke(app, arguments[command])
    assert result.exit_code == 2 and "https://example.com/pets is a URL" in result.stderr
    assert "pets.yaml:1:" in result.stderr or command != "fit"


def test_a_url_to_predict_is_called_that() -> None:
    with pytest.raises(RunError, match=r"https://example\.com/cat\.jpg is a URL"):
        image_files([Path("https://example.com/cat.jpg")])


def test_a_root_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "pets.zip").touch()
    assert "pets.zip is a file" in refusal(tmp_path / "pets.zip") and "unpack it" in refusal(tmp_path / "pets.zip")
