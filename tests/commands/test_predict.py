"""`dltrain predict`: rows for files, by the preprocessing of evaluation."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forking import Zygote
from PIL import Image
from typer.testing import CliRunner, Result

from dltrain.cli import app
from dltrain.commands.evaluate import measure
from dltrain.commands.predict import image_files
from dltrain.engine.predictor import restore_predictor
from dltrain.errors import RunError
from dltrain.runs import checkpoints
from dltrain.runs.run import Run

CLASSES = ["blau", "grün", "red"]


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def rows(*arguments: Any) -> list[dict[str, str]]:
    result = invoke("predict", *arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return list(csv.DictReader(io.StringIO(result.stdout)))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos of mixed sizes, and a run trained on it for a moment."""
    base = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(72):
        height, width = random.integers(18, 40, 2)
        pixels = random.integers(0, 256, (height, width, 3)).astype(np.uint8)
        pixels[:, :, [2, 1, 0][number % 3]] |= 128
        file = base / "data" / CLASSES[number % 3] / f"{number:02d}.{'png' if number % 2 else 'jpg'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    (base / "photos.yaml").write_text(
        f"data: {{name: image_folder, root: {base / 'data'}, size: 16, validation: 0.2}}\n"
        "augmentation: [{name: random_resized_crop, scale: [0.5, 1.0]}]\n"
        "model: {name: convnet, widths: [8, 16]}\n"
        "training: {epochs: 3, batch_size: 16, average: {name: ema, decay: 0.8}}\n"
    )
    result = invoke("fit", base / "photos.yaml", "--runs", base)
    assert result.exit_code == 0, result.stderr
    return base


@pytest.fixture(scope="module")
def run(photos: Path) -> Path:
    return photos / "photos/001"


def test_prediction_is_evaluation(photos: Path, run: Path) -> None:
    """Each test image's class and probabilities are those of `eval`, and so is the confusion matrix."""
    state = Run(run).checkpoint("best")[1]
    predictor = restore_predictor(state, "cpu")
    test = predictor.experiment.data.load().test
    assert test is not None
    files = [Path(name) for name in test.names()]
    found = rows(run, *files)
    confusion = np.zeros((3, 3), int)
    for row, label in zip(found, test.targets, strict=True):
        confusion[label, CLASSES.index(row["class"])] += 1
    report = measure(predictor, test, predictor.experiment)
    assert confusion.tolist() == report.confusion
    losses = [-np.log(float(row[CLASSES[label]])) for row, label in zip(found, test.targets, strict=True)]
    assert np.mean(losses) == pytest.approx(report.loss, rel=1e-4)


def test_csv_and_json_lines_agree(photos: Path, run: Path) -> None:
    table = rows(run, photos / "data")
    result = invoke("predict", run, photos / "data", "--format", "jsonl")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(table) == len(records) == 72
    for row, record in zip(table, records, strict=True):
        assert (row["path"], row["class"]) == (record["path"], record["class"])
        assert list(record["probabilities"]) == CLASSES
        assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-6)
        assert record["probability"] == max(record["probabilities"].values())
        assert [float(row[name]) for name in CLASSES] == pytest.approx(list(record["probabilities"].values()), abs=6e-7)
    assert [r["path"] for r in records] == [str(p) for p in sorted((photos / "data").rglob("*.*"))]


def test_batching_does_not_matter(photos: Path, run: Path) -> None:
    one, many = (
        np.array([[float(row[name]) for name in CLASSES] for row in rows(run, photos / "data", "--batch-size", size)])
        for size in (1, 50)
    )
    assert np.abs(one - many).max() <= 1.5e-6


def test_a_checkpoint_file_will_do(photos: Path, run: Path) -> None:
    image = photos / "data/red/02.jpg"
    assert rows(run / "checkpoints/last.pt", image) == rows(run, image, "--checkpoint", "last")


def test_unreadable_files_are_named_and_the_others_go_on(photos: Path, run: Path, tmp_path: Path) -> None:
    whole = (photos / "data/red/02.jpg").read_bytes()
    for name, content in {
        "a.jpg": whole,
        "b.jpg": b"no image",
        "c.jpg": whole[:300],
        "d.jpg": b"",
        "e.jpg": whole,
    }.items():
        (tmp_path / name).write_bytes(content)
    result = invoke("predict", run, tmp_path, tmp_path / "a.jpg")
    assert result.exit_code == 1
    table = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [Path(row["path"]).name for row in table] == ["a.jpg", "e.jpg", "a.jpg"]
    lines = result.stderr.splitlines()
    assert [str(tmp_path / name) in line for name, line in zip(("b.jpg", "c.jpg", "d.jpg"), lines, strict=False)] == [
        True
    ] * 3
    assert lines[3:] == ["3 of 6 files could not be read"]


def test_every_kind_of_file(photos: Path, run: Path, tmp_path: Path) -> None:
    """What a file holds decides, not its mode: the same picture in every form has the same row."""
    picture = Image.open(photos / "data/red/05.png")
    grey = picture.convert("L")
    rotated = picture.getexif()
    rotated[274] = 6
    picture.rotate(90, expand=True).save(tmp_path / "exif.png", exif=rotated)
    picture.save(tmp_path / "same.webp", lossless=True)
    picture.save(tmp_path / "same.BMP")
    picture.convert("RGBA").save(tmp_path / "rgba.png")
    grey.save(tmp_path / "grey.png")
    grey.convert("RGB").save(tmp_path / "grey-as-rgb.png")
    found = {Path(row.pop("path")).name: row for row in rows(run, tmp_path, photos / "data/red/05.png")}
    expected = found.pop("05.png")
    assert found.pop("grey.png") == found.pop("grey-as-rgb.png") != expected
    assert set(found) == {"exif.png", "same.webp", "same.BMP", "rgba.png"}
    assert all(row == expected for row in found.values())


@pytest.mark.parametrize("name", ['größe, "1" 犬.png', "line\nbreak.png"])
def test_any_path(photos: Path, run: Path, tmp_path: Path, name: str) -> None:
    try:
        (tmp_path / name).write_bytes((photos / "data/red/05.png").read_bytes())
    except OSError:
        pytest.skip("this file system does not take such a name")
    result = invoke("predict", run, tmp_path)
    assert result.exit_code == 0, result.stderr
    text = result.stdout_bytes.decode(errors="surrogateescape")
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["path"] == str(tmp_path / name)


def test_which_files_of_a_folder(photos: Path, tmp_path: Path) -> None:
    for name in ("b/2.png", "a.JPG", "b/1.jpeg", "notes.txt", ".hidden.png", ".thumbs/x.png", "c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in image_files([tmp_path])]
    assert found == ["a.JPG", "c.webp", "b/1.jpeg", "b/2.png"]
    assert list(image_files([tmp_path / "notes.txt"])) == [tmp_path / "notes.txt"]  # asked for by name


def test_a_folder_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are listed as they are needed."""
    from dltrain.commands import predict
    from dltrain.data.types import Canvas

    submitted: list[str] = []
    monkeypatch.setattr(predict, "decode", lambda path, channels: torch.zeros(3, 4, 4, dtype=torch.uint8))

    def endless() -> Iterator[Path]:
        for number in range(10_000):
            submitted.append(str(number))
            yield Path(str(number))

    batches = predict.decoded(endless(), [(Canvas(4, 4), 3)], batch_size=8)
    next(batches)
    next(batches)
    assert len(submitted) <= 4 * 8


def test_requests_that_cannot_be_met(run: Path, tmp_path: Path) -> None:
    result = invoke("predict", run, tmp_path / "absent.png")
    assert result.exit_code == 2 and "there is no file" in result.stderr
    result = invoke("predict", run, tmp_path)
    assert result.exit_code == 2 and "there is no image in" in result.stderr
    with pytest.raises(RunError):
        image_files([tmp_path / "absent.png"])


@pytest.mark.parametrize(
    "seen", [[], ["--views", "flip"], ["--views", "flip_shift", "--views-share", "0.5"], ["--with"]]
)
def test_the_class_is_decided_before_rounding(seen: list[str], tmp_path: Path) -> None:
    """Logits whose probabilities are equal in float32 still have a largest one, and every command answers with it."""
    text = "data: digits\nmodel: {name: mlp, hidden: [4]}\ntraining: {steps: 1, batch_size: 64, precision: float32}\n"
    (tmp_path / "digits.yaml").write_text(text)
    assert invoke("fit", tmp_path / "digits.yaml", "--runs", tmp_path).exit_code == 0
    run = tmp_path / "digits/001"
    state = Run(run).checkpoint("best")[1]
    *_, weight, bias = state["model"].values()
    weight.zero_(), bias.zero_()
    bias[3] = 1e-9
    assert len(set(bias.softmax(0).tolist())) == 1
    checkpoints.save(state, run / "checkpoints/best.pt")
    Image.new("L", (8, 8), 90).save(tmp_path / "a.png")
    Image.new("L", (8, 8), 30).save(tmp_path / "b.png")
    seen = [*seen, str(run)] if seen == ["--with"] else seen
    images = tmp_path / "a.png", tmp_path / "b.png"
    assert [row["class"] for row in rows(run, *images, *seen)] == ["3", "3"]
    lines = invoke("predict", run, *images, *seen, "--format", "jsonl").stdout.splitlines()
    assert [json.loads(line)["class"] for line in lines] == ["3", "3"]
    members = [run] if "--with" in seen else []
    result = invoke("eval", run, *members, *([] if members else seen), "--json")
    confusion = np.array(json.loads(result.stdout)["confusion_matrix"])
    assert confusion[:, 3].sum() == confusion.sum() > 100


def test_arrays_label_files_of_their_size(tmp_path: Path) -> None:
    """A network trained on scikit-learn's digits reads PNG files of 8x8, grey or RGB."""
    (tmp_path / "digits.yaml").write_text(
        "data: digits\nmodel: {name: mlp, hidden: [32]}\ntraining: {epochs: 3, batch_size: 64}\n"
    )
    assert invoke("fit", tmp_path / "digits.yaml", "--runs", tmp_path).exit_code == 0
    run = tmp_path / "digits/001"
    predictor = restore_predictor(Run(run).checkpoint("best")[1], "cpu")
    test = predictor.experiment.data.load().test
    assert test is not None
    for number in range(20):
        Image.fromarray(test.images[number, 0]).convert("RGB" if number % 2 else "L").save(
            tmp_path / f"{number:02d}.png"
        )
    found = rows(run, *sorted(tmp_path.glob("*.png")))
    expected = predictor.outputs(torch.from_numpy(test.images[:20])).float().softmax(1).cpu()
    probabilities = np.array([[float(row[str(digit)]) for digit in range(10)] for row in found])
    assert np.abs(probabilities - expected.numpy()).max() < 1.5e-6
    assert [row["class"] for row in found] == [str(k) for k in expected.argmax(1).tolist()]


def test_classes_called_as_the_columns_are(photos: Path, run: Path, tmp_path: Path) -> None:
    """The CSV can still be read by the names of its columns, of which there are no two alike."""
    state = Run(run).checkpoint("best")[1]
    state["about"]["target"]["names"] = ["class", "path", "probability of class"]
    checkpoints.save(state, tmp_path / "renamed.pt")
    file = photos / "data" / "red" / "02.jpg"
    row, before = rows(tmp_path / "renamed.pt", file)[0], rows(run, file)[0]
    assert (row["path"], row["probability"]) == (str(file), before["probability"])
    assert row["class"] == state["about"]["target"]["names"][CLASSES.index(before["class"])]
    assert list(row.values())[3:] == list(before.values())[3:]
    assert list(row)[3:] == ["probability of class ", "probability of path", "probability of class"]


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX systems alone")
def test_names_come_back_byte_by_byte(photos: Path, run: Path, zygote: Zygote, tmp_path: Path) -> None:
    """Composed and decomposed accents stay apart, and names that are not UTF-8 are found again."""
    image = (photos / "data" / "red" / "02.jpg").read_bytes()
    names = [b"caf\xe9.jpg", "café.jpg".encode(), "cafe\u0301.jpg".encode(), b"line\nbreak.jpg"]
    (tmp_path / "d").mkdir()
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path / "d") + b"/" + name)).write_bytes(image)
    for form in ("csv", "jsonl"):
        done = zygote.capture("predict", run, "d", "--format", form, cwd=tmp_path)
        assert done.code == 0, done.stderr
        text = done.stdout_bytes.decode("utf-8", "surrogateescape")
        lines = (
            [json.loads(line) for line in text.splitlines()] if form == "jsonl" else csv.DictReader(io.StringIO(text))
        )
        assert sorted(os.fsencode(row["path"]) for row in lines) == sorted(b"d/" + name for name in names)
