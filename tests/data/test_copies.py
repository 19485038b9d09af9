"""Copies of images: on one side of a split, left out, or an error; and data that changes is noticed."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forking import Zygote
from photos import COPIES, photo, write_photos
from PIL import Image
from rationing import some
from typer.testing import CliRunner, Result

from dltrain import Experiment
from dltrain.cli import app
from dltrain.config import ConfigError
from dltrain.data.base import Dataset
from dltrain.data.copies import contents
from dltrain.data.types import Source, Splits


def load(root: Path, **options: Any) -> Splits:
    return Dataset.parse({"name": "image_folder", "root": str(root), **options}).load()


def load_arrays(path: Path, **options: Any) -> Splits:
    return Dataset.parse({"name": "arrays", "path": str(path), **options}).load()


def paths(source: Source | None) -> list[str]:
    assert source is not None and source.files is not None
    return source.files.paths


def sides(splits: Splits) -> dict[str, set[str]]:
    """By the picture that a file was made of (the first three letters of its name and its class): its splits."""
    found: dict[str, set[str]] = {}
    for name in ("train", "validation", "test"):
        for path in paths(getattr(splits, name)):
            label, file = path.split("/")
            found.setdefault(f"{label}/{file[:3]}", set()).add(name)
    return found


def refusal(root: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(root, **options)
    return "\n".join(d.render() for d in caught.value.diagnostics)


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


# -- copies and where they go


@pytest.mark.parametrize("kind", some(COPIES, 2))
def test_a_copy_of_every_kind_stays_with_its_picture(tmp_path: Path, kind: str) -> None:
    write_photos(tmp_path, ["ant", "bee"], 20)
    for file in sorted(tmp_path.rglob("*.png")):
        COPIES[kind](Image.open(file), file.with_name(f"{file.stem} {kind}"))
    splits = load(tmp_path, validation=0.2, test=0.2)
    assert all(len(where) == 1 for where in sides(splits).values())
    assert [len(part or []) for part in (splits.train, splits.validation, splits.test)] == [52, 12, 16]
    assert any("40 of 80 images are copies of others, such as" in note for note in map(str, splits.notes))


def test_one_of_each_picture_stays_with_drop(tmp_path: Path) -> None:
    write_photos(tmp_path, ["ant", "bee"], 10)
    for (name, save), file in zip(itertools.cycle(COPIES.items()), sorted(tmp_path.rglob("*.png"))):
        save(Image.open(file), file.with_name(f"{file.stem} {name}"))
    splits = load(tmp_path, validation=0.2, test=0.2, copies="drop")
    assert len(sides(splits)) == 20 == sum(len(part or []) for part in (splits.train, splits.validation, splits.test))
    assert tuple(note.text for note in splits.notes) == ("20 copies of other images are left out (`copies: drop`)",)
    allowed = load(tmp_path, validation=0.2, test=0.2, copies="allow")
    assert any(len(where) > 1 for where in sides(allowed).values()) and not allowed.notes


def plain(number: int) -> Image.Image:
    """A colour with noise, another each time, as a scanner sees an empty page."""
    noise = np.random.default_rng(number).normal(0, 12, (64, 64, 3))
    return Image.fromarray((np.array([200, 60, 60]) + noise).clip(0, 255).astype(np.uint8))


def noise(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8))


@cache
def digits() -> Any:
    from sklearn.datasets import load_digits

    return load_digits().images


def digit(number: int) -> Image.Image:
    return Image.fromarray((digits()[number] * 15.9).astype(np.uint8)).resize((64, 64))


def disc(number: int) -> Image.Image:
    random = np.random.default_rng(number)
    down, right, radius = random.uniform(16, 48), random.uniform(16, 48), random.uniform(8, 14)
    rows, columns = np.mgrid[:64, :64]
    inside = (rows - down) ** 2 + (columns - right) ** 2 < radius**2
    return Image.fromarray((inside * 200 + random.normal(20, 4, (64, 64))).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("draw", [plain, noise, digit, disc, photo])
def test_pictures_that_are_alike_are_no_copies(tmp_path: Path, draw: Any) -> None:
    for label, number in itertools.product("ab", range(60)):
        (tmp_path / label).mkdir(exist_ok=True)
        draw(number + 60 * (label == "b")).save(tmp_path / label / f"{number}.png")
    splits = load(tmp_path, validation=0.1)
    assert splits.notes == () and (len(splits.test or []), len(splits.validation or [])) == (24, 10)


def test_small_pictures_are_copies_when_they_are_equal(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=np.concatenate([images] * 3), labels=np.tile(np.arange(60) % 2, 3))
    splits = load_arrays(tmp_path / "x.npz", validation=0.2, test=0.2)
    seen = [{image.tobytes() for image in part.images} for part in (splits.train, splits.validation, splits.test)]  # type: ignore[union-attr]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert [len(part) for part in seen] == [40, 8, 12]
    assert f"{tmp_path / 'x.npz'}: images[60] of {tmp_path / 'x.npz'}: images[0]" in str(splits.notes[0])


def test_near_copies_in_arrays(tmp_path: Path) -> None:
    shots = [photo(number, 48, 48) for number in range(40)]
    images = np.stack([np.asarray(each) for shot in shots for each in (shot, shot.resize((24, 24)).resize((48, 48)))])
    np.savez(tmp_path / "x.npz", images=images, labels=np.repeat(np.arange(40) % 2, 2))
    splits = load_arrays(tmp_path / "x.npz", validation=0.2, test=0.2)
    assert "40 of 80 images are copies" in str(splits.notes[0])


def test_pictures_of_few_bits_in_deep_files_are_told_apart(tmp_path: Path) -> None:
    """Twelve or fewer bits in files of 16, of which the upper 8 are nearly all 0."""
    random = np.random.default_rng(0)
    for label, number in itertools.product("ab", range(10)):
        (tmp_path / label).mkdir(exist_ok=True)
        values = random.integers(0, 100, (16, 16)).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / label / f"{number}.png")
    splits = load(tmp_path)
    assert splits.notes == () and len(splits.train) == 14


# -- one picture, two labels


def test_one_picture_in_two_classes_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", ["ant", "bee"], 8)
    original, other = tmp_path / "photos/ant/003.png", tmp_path / "photos/bee/copy.bmp"
    Image.open(original).save(other)
    (tmp_path / "e.yaml").write_text(
        f"data: {{name: image_folder, root: {tmp_path / 'photos'}, size: 16, validation: 0.2}}\n"
        "model: {name: mlp, hidden: [8]}\ntraining: {epochs: 1, batch_size: 4}\n"
    )
    result = invoke("fit", tmp_path / "e.yaml", "--runs", tmp_path / "runs")
    assert result.exit_code == 2 and not (tmp_path / "runs").exists()
    assert f"the same image is in two classes: {original} (`ant`) and {other} (`bee`)" in result.stderr
    assert "`data.copies: allow`" in result.stderr and "e.yaml:1" in result.stderr
    shutil.copy(original, tmp_path / "photos/bee/again.png")
    result = invoke("fit", tmp_path / "e.yaml", "data.copies=allow", "--runs", tmp_path / "runs")
    assert result.exit_code == 0, result.stderr
    assert "warning: the same image is in two classes" in result.stderr


def test_blank_pictures_are_copies_of_nothing(tmp_path: Path) -> None:
    """Forty of one colour, in two classes: neither contradictory, nor one picture that cannot be divided."""
    np.savez(tmp_path / "a.npz", images=np.zeros((40, 8, 8), np.uint8), labels=np.arange(40) % 2)
    splits = Experiment.parse(f"data: {{name: arrays, path: {tmp_path / 'a.npz'}}}\nmodel: mlp\n").data.load()
    assert splits.validation is not None and splits.test is not None
    assert not any("copies" in note for note in map(str, splits.notes))


def test_one_picture_in_two_classes_of_the_test_split_is_spoken_of(tmp_path: Path) -> None:
    write_photos(tmp_path / "train", ["ant", "bee"], 10)
    write_photos(tmp_path / "test", ["ant", "bee"], 4, start=50)
    shutil.copy(tmp_path / "test/ant/050.png", tmp_path / "test/bee/x.png")
    (note,) = map(str, load(tmp_path).notes)
    assert note.startswith("warning: the same image is in two classes: ") and str(tmp_path / "test/bee/x.png") in note
    shutil.copy(tmp_path / "train/ant/003.png", tmp_path / "test/bee/y.png")
    assert f"{tmp_path / 'train/ant/003.png'} (`ant`) and {tmp_path / 'test/bee/y.png'} (`bee`)" in refusal(tmp_path)


def test_alike_in_two_classes_is_spoken_of(tmp_path: Path) -> None:
    write_photos(tmp_path, ["ant", "bee"], 10)
    COPIES["poor.jpg"](Image.open(tmp_path / "ant/003.png"), tmp_path / "bee/alike.jpg")
    (note,) = map(str, load(tmp_path).notes)
    assert note.startswith("warning: 2 images look like one of another class, such as ")
    assert str(tmp_path / "ant/003.png") in note and str(tmp_path / "bee/alike.jpg") in note


def test_a_class_of_copies_cannot_be_divided(tmp_path: Path) -> None:
    write_photos(tmp_path, ["ant", "bee"], 10)
    for file in sorted((tmp_path / "ant").iterdir())[1:]:
        shutil.copy(tmp_path / "ant/000.png", file)
    text = refusal(tmp_path)
    assert "class `ant` cannot be divided: its 10 examples are all copies of one another" in text
    assert "`data.copies: allow`" in text
    assert len(load(tmp_path, copies="allow").test or []) == 4


# -- splits that are given


def test_copies_across_given_splits(tmp_path: Path) -> None:
    write_photos(tmp_path / "train", ["ant", "bee"], 10)
    write_photos(tmp_path / "test", ["ant", "bee"], 4, start=50)
    for number, name in ((0, "poor.jpg"), (1, "same.bmp"), (2, "cut.png")):
        COPIES[name](Image.open(tmp_path / f"train/ant/{number:03d}.png"), tmp_path / "test/ant" / name)
    splits = load(tmp_path, validation=0)
    (note,) = map(str, splits.notes)
    assert note.startswith("warning: 3 of 11 test images are copies of training images, such as ")
    assert f"{tmp_path / 'test/ant/cut.png'} of {tmp_path / 'train/ant/002.png'}" in note
    assert "`data.copies: drop`" in note and (len(splits.train), len(splits.test or [])) == (20, 11)
    dropped = load(tmp_path, validation=0, copies="drop")
    assert (len(dropped.train), len(dropped.test or [])) == (17, 11)
    assert tuple(note.text for note in dropped.notes) == (
        "3 copies of test images are left out of the training (`copies: drop`)",
    )
    assert load(tmp_path, validation=0, copies="allow").notes == ()


# -- which example goes where


def digest(file: Path) -> str:
    return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()


def test_the_lowest_content_hashes_of_every_class_are_held_out(tmp_path: Path) -> None:
    write_photos(tmp_path, ["ant", "bee"], 20)
    splits = load(tmp_path, validation=0.2, test=0.25)
    for name in ("ant", "bee"):
        ranked = sorted((tmp_path / name).iterdir(), key=digest)
        expected = {"test": ranked[:5], "validation": ranked[5:8], "train": ranked[8:]}
        for split, files in expected.items():
            here = [path for path in paths(getattr(splits, split)) if path.startswith(name)]
            assert sorted(here) == sorted(f"{name}/{file.name}" for file in files)


def test_a_new_name_moves_no_example(tmp_path: Path) -> None:
    write_photos(tmp_path, ["ant", "bee"], 20)
    before = {digest(tmp_path / path) for path in paths(load(tmp_path).test)}
    for file in sorted(tmp_path.rglob("*.png")):
        file.rename(file.with_name(f"{file.stem[::-1]}x.png"))
    assert {digest(tmp_path / path) for path in paths(load(tmp_path).test)} == before


def test_as_a_folder_grows_only_boundary_examples_move(tmp_path: Path) -> None:
    write_photos(tmp_path, ["ant", "bee"], 30)
    for file in sorted(tmp_path.rglob("00*.png")):
        shutil.copy(file, file.with_name(f"{file.stem}-copy.png"))
    before = set(paths(load(tmp_path, test=0.25).test))
    write_photos(tmp_path, ["ant", "bee"], 4, start=30)
    after = load(tmp_path, test=0.25)
    assert len(before - set(paths(after.test))) <= 4
    assert all(len(where) == 1 for where in sides(after).values())


# -- what a data set is known by


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose contents are remembered in a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "SETTLED", 0)
    return write_photos(tmp_path / "photos", ["ant", "bee"], 10)


def exchange(file: Path, other: Image.Image) -> None:
    """Put another picture of the same size in bytes and the same time of change into a file."""
    state = file.stat()
    other.save(file)
    assert file.stat().st_size == state.st_size
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_an_exchanged_picture_changes_the_fingerprint(photos: Path) -> None:
    for file in sorted(photos.rglob("*.png")):
        Image.open(file).save(file.with_suffix(".bmp"))
        file.unlink()
    before = load(photos)
    assert load(photos).fingerprint == before.fingerprint
    exchange(photos / "ant/004.bmp", photo(77))
    assert load(photos).fingerprint != before.fingerprint
    exchange(photos / "ant/004.bmp", photo(4))
    assert load(photos).fingerprint == before.fingerprint
    (photos / "ant/004.bmp").rename(photos / "bee/zzz.bmp")
    assert load(photos).fingerprint != before.fingerprint


def test_files_are_read_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(photos)
    (memory,) = (photos.parent / "cache/dltrain").glob("photos-*.contents")
    monkeypatch.setattr(contents, "decode", None)
    again = load(photos)
    assert again.fingerprint == first.fingerprint and paths(again.test) == paths(first.test)
    monkeypatch.undo()
    junk = [
        b"",
        b"x" * 99,
        (2**40).to_bytes(8, "little") + b"x" * 999,
        (3).to_bytes(8, "little") + b"a\0b" + b"x" * 999,
    ]
    magic = memory.read_bytes().partition(b"\n")[0] + b"\n"
    forged = [magic + hashlib.blake2b(body, digest_size=16).digest() + body for body in junk]
    for damage in (b"", b"nonsense", memory.read_bytes()[:-7], memory.read_bytes()[:200] + b"x" * 99, *forged):
        memory.write_bytes(damage)
        assert load(photos).fingerprint == first.fingerprint


def test_processes_share_the_cache(photos: Path, zygote: Zygote, tmp_path: Path) -> None:
    section = {"name": "image_folder", "root": str(photos)}
    program = f"""
import os, sys
os.environ["XDG_CACHE_HOME"] = {str(photos.parent / "cache")!r}
from dltrain.data.base import Dataset
print(Dataset.parse({section!r}).load().fingerprint)
sys.exit()
"""
    started = [zygote.start(output=tmp_path / f"{number}.txt", setup=program) for number in range(3)]
    assert [child.wait() for child in started] == [0, 0, 0]
    assert {child.text.strip() for child in started} == {load(photos).fingerprint}
    left = {path.suffix for path in (photos.parent / "cache/dltrain").iterdir()}
    assert left <= {".contents", ".lock"}


def test_a_cache_that_cannot_be_written_does_no_harm(photos: Path) -> None:
    first = load(photos)
    shutil.rmtree(photos.parent / "cache")
    (photos.parent / "cache").write_text("a file is in the way")
    assert load(photos).fingerprint == first.fingerprint


def test_pictures_that_cannot_be_read_are_no_copies(photos: Path) -> None:
    for name in ("ant/bad.png", "bee/bad.png"):
        (photos / name).write_text("not an image")
    with pytest.raises(ConfigError, match=r"bad\.png is not an image"):
        load(photos)
    splits = load(photos, on_error="skip")
    assert sum(len(part or []) for part in (splits.train, splits.validation, splits.test)) == 20


# -- runs of earlier versions


def test_a_run_of_an_earlier_version_is_measured_on_its_own_splits(tmp_path: Path) -> None:
    from dltrain.runs import checkpoints

    root = write_photos(tmp_path / "photos", ["ant", "bee"], 20)
    dataset = Dataset.parse({"name": "image_folder", "root": str(root), "validation": 0.2})
    assert isinstance(dataset, Dataset)
    before = dataset.load(like="0" * 32)
    for name in ("ant", "bee"):
        ranked = sorted(
            (f"{name}/{number:03d}.png" for number in range(20)),
            key=lambda path: hashlib.blake2b(path.encode(), digest_size=16).digest(),
        )
        assert [path for path in paths(before.test) if path.startswith(name)] == sorted(ranked[:4])
    (tmp_path / "e.yaml").write_text(
        f"data: {{name: image_folder, root: {root}, size: 16, validation: 0.2}}\n"
        "model: {name: mlp, hidden: [8]}\ntraining: {epochs: 1, batch_size: 4}\n"
    )
    result = invoke("fit", tmp_path / "e.yaml", "--runs", tmp_path / "runs")
    assert result.exit_code == 0, result.stderr
    best = tmp_path / "runs/e/001/checkpoints/best.pt"
    state = checkpoints.load(best)
    state["about"]["fingerprint"] = before.fingerprint
    checkpoints.save(state, best)
    result = invoke("eval", tmp_path / "runs/e/001", "--json")
    assert result.exit_code == 0 and "not the data of the training" not in result.stderr
    assert json.loads(result.stdout)["data_fingerprint"] == before.fingerprint
