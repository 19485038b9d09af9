"""The same answers three ways: `predict` of a run, `predict` and `eval` of its exported file, and from Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluating import invoke, measured
from PIL import Image
from training import write_arrays

import dltrain
from dltrain.errors import RequestError

CLASSES = ["blau", "grün", "rot"]


def rows(*arguments: Any) -> list[dict[str, Any]]:
    result = invoke("predict", *arguments, "--format", "jsonl")
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def data(photo_run: Path) -> Path:
    return photo_run.parent.parent / "data"


@pytest.fixture(scope="module")
def model(photo_run: Path) -> dltrain.TrainedModel:
    return dltrain.load(photo_run)


# -- from Python


def test_answers_are_those_of_the_command(photo_run: Path, data: Path, model: dltrain.TrainedModel) -> None:
    wanted = rows(photo_run, data)
    found = model.predict(data, batch_size=64)
    assert found.names == [row.pop("path") for row in wanted]
    assert found.answers == wanted and found[3] == wanted[3] and len(found) == 48
    assert found.classes == [row["class"] for row in wanted] and model.names == CLASSES
    listed = [list(row["probabilities"].values()) for row in wanted]
    assert found.probabilities.tolist() == listed
    assert model.predict([str(path) for path in found.names]).answers == wanted


def test_pictures_and_arrays_are_answered_as_their_files(data: Path, model: dltrain.TrainedModel) -> None:
    files = sorted(data.rglob("*.png"))[:5]
    wanted = model.predict(files).probabilities
    pictures = [Image.open(file) for file in files]
    arrays = [np.asarray(picture) for picture in pictures]
    for asked in (pictures, arrays, [pictures[0], arrays[1], str(files[2]), arrays[3], pictures[4]]):
        found = model.predict(asked)
        assert np.abs(found.probabilities - wanted).max() < 1e-6
        assert found.names == ["0", "1", "2", "3", "4"]
    one = model.predict(pictures[2])
    assert np.abs(one.probabilities - wanted[2:3]).max() < 1e-6
    batch = np.stack([arrays[0], arrays[0][::-1]])
    assert np.abs(model.predict(batch).probabilities[0] - wanted[0]).max() < 1e-6


def test_embeddings_are_what_the_last_layer_is_given(data: Path, model: dltrain.TrainedModel) -> None:
    files = sorted(data.rglob("*.png"))[:6]
    embedded = model.embed(files, batch_size=4)
    assert embedded.shape == (6, 8) and embedded.dtype == np.float32
    head = [layer for layer in model.module.modules() if isinstance(layer, torch.nn.Linear)][-1]
    with torch.no_grad():
        outputs = head(torch.from_numpy(embedded))
    assert np.abs(outputs.softmax(1).numpy() - model.predict(files).probabilities).max() < 1e-6
    assert not model.module.training


def test_codes_are_the_embeddings_of_an_autoencoder(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz")
    (tmp_path / "x.yaml").write_text(
        f"data: {{name: arrays, path: {tmp_path / 'a.npz'}}}\ntask: reconstruction\n"
        "model: {name: autoencoder, code: 5}\ntraining: {epochs: 1, batch_size: 50}\n"
    )
    assert invoke("fit", tmp_path / "x.yaml", "--runs", tmp_path).exit_code == 0
    model = dltrain.load(tmp_path / "x/001")
    images = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), dtype=np.uint8)
    assert model.embed(images).shape == (4, 5)
    found = model.predict(images)
    assert found.arrays["reconstructions"].shape == (4, 3, 8, 8)
    assert found.arrays["mse"].tolist() == [answer["mse"] for answer in found.answers]
    with pytest.raises(RequestError, match="there is no `class` in these answers, but reconstructions, mse"):
        _ = found.classes


def test_columns_are_answered_as_the_table(tmp_path: Path) -> None:
    lines = [f"{n % 7 + 0.5 if n % 5 else ''},{'abc'[n % 3] if n % 4 else ''},{3 * n % 11}" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["size,town,price", *lines]))
    (tmp_path / "t.yaml").write_text(
        f"data: {{name: table, path: {tmp_path / 't.csv'}, target: price, missing: mean}}\ntask: regression\n"
        "model: {name: mlp, hidden: [8]}\ntraining: {epochs: 1, batch_size: 16}\n"
    )
    fitted = invoke("fit", tmp_path / "t.yaml", "--runs", tmp_path)
    assert fitted.exit_code == 0, fitted.stderr
    model = dltrain.load(tmp_path / "t/001", checkpoint="last")
    wanted = rows(tmp_path / "t/001", tmp_path / "t.csv", "--checkpoint", "last")
    by_file = model.predict(tmp_path / "t.csv")
    assert by_file.values[:, 0].tolist() == [row["price"] for row in wanted]
    assert by_file.names[:2] == [f"{tmp_path / 't.csv'}:1", f"{tmp_path / 't.csv'}:2"]
    cells = [line.split(",") for line in lines]
    columns = {"town": [town or None for _, town, _ in cells], "size": [float(size or "nan") for size, _, _ in cells]}
    assert np.array_equal(model.predict(columns).values, by_file.values)
    with pytest.raises(RequestError, match="must have one length"):
        model.predict({"town": ["a"], "size": [1.0, 2.0]})
    with pytest.raises(dltrain.ConfigError, match="no column `size`"):
        model.predict({"town": ["a"]})
    with pytest.raises(RequestError, match="the network takes rows"):
        model.predict(np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (np.zeros((5, 5, 3)), "an image is uint8, .* and not float64 of shape"),
        (np.zeros((5, 5), np.uint8), "the image has 1 channels, and the network takes 3"),
        ([3], "a int is no image"),
        ([], "there is nothing to answer"),
        ({"a": [1]}, "columns of a table were given"),
    ],
)
def test_what_is_no_image_is_refused(model: dltrain.TrainedModel, asked: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        model.predict(asked)


# -- of the file


def test_the_file_is_asked_as_the_run(photo_run: Path, exported: Path, data: Path) -> None:
    by_run, by_file = rows(photo_run, data), rows(exported, data)
    assert [row["path"] for row in by_file] == [row["path"] for row in by_run]
    for one, other in zip(by_run, by_file, strict=True):
        large = int(Path(one["path"]).stem) % 8 == 5
        values = list(other["probabilities"].values())
        assert values == pytest.approx(list(one["probabilities"].values()), abs=2e-2 if large else 2e-6)
    as_run, as_file = measured(photo_run, "--split", "validation"), measured(exported, "--split", "validation")
    assert as_file["examples"] == as_run["examples"]
    assert as_file["loss"] == pytest.approx(as_run["loss"], rel=2e-2)
    assert as_file["data_fingerprint"] == as_run["data_fingerprint"]
    proof = json.loads((exported.parent / "export.json").read_text())
    assert as_file["loss"] == pytest.approx(proof["metrics"]["file"]["loss"], rel=1e-6)


def test_unreadable_files_are_named_and_the_others_go_on(exported: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    (tmp_path / "b.png").write_bytes(next(iter(sorted(data.rglob("*.png")))).read_bytes())
    result = invoke("predict", exported, tmp_path)
    assert result.exit_code == 1
    assert "a.jpg" in result.stderr and "1 of 2 files could not be read" in result.stderr
    assert result.stdout.count("\n") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "FILE", "--views", "flip"], "an exported file has its own weights and views: leave out --views"),
        (["eval", "FILE", "RUN"], "an exported file answers alone"),
        (["predict", "FILE", "nowhere.png"], "there is no file nowhere.png"),
        (["predict", "FILE", "table.csv"], "the file takes images, and table.csv is a table"),
        (["eval", "nowhere.onnx"], "there is no file nowhere.onnx"),
        (["eval", "FILE", "model.name=mlp"], "all but `data`"),
    ],
)
def test_wrong_requests_of_a_file(exported: Path, photo_run: Path, arguments: list[str], message: str) -> None:
    places = {"FILE": str(exported), "RUN": str(photo_run)}
    result = invoke(*(places.get(text, text) for text in arguments))
    assert result.exit_code == 2, result.stderr
    assert message in result.stderr and "Traceback" not in result.stderr


def test_files_that_are_no_export_are_told(exported: Path, tmp_path: Path) -> None:
    import onnx

    (tmp_path / "cut.onnx").write_bytes(exported.read_bytes()[:1000])
    (tmp_path / "empty.onnx").write_bytes(b"")
    foreign = onnx.load(exported)
    kept = {each.key: each.value for each in foreign.metadata_props}
    for name, texts in {
        "foreign.onnx": {},
        "other.onnx": {**kept, "dltrain": "[1]"},
        "newer.onnx": {**kept, "dltrain": kept["dltrain"].replace('"format": 1', '"format": 2')},
        "task.onnx": {**kept, "dltrain": kept["dltrain"].replace('"outputs": [', '"outputs": [], "_": [')},
    }.items():
        del foreign.metadata_props[:]
        for key, value in texts.items():
            foreign.metadata_props.add(key=key, value=value)
        onnx.save(foreign, tmp_path / name)
    for name, message in {
        "cut.onnx": "is not an ONNX file that can be run",
        "empty.onnx": "is not an ONNX file that can be run",
        "foreign.onnx": "is not a file that `dltrain export` wrote",
        "other.onnx": "does not say of itself what `dltrain export` writes",
        "newer.onnx": "has format 2; this version of dltrain reads format 1",
        "task.onnx": "does not hold what its task `classification` answers by",
    }.items():
        result = invoke("predict", tmp_path / name, exported.parent)
        assert result.exit_code == 2 and message in result.stderr, (name, result.stderr)
