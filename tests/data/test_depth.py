"""Values that are not plain bytes: files of 16 and 32 bits, arrays of other types, images without contrast."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from dltrain import Experiment, Trainer, build
from dltrain.cli import app
from dltrain.config import ConfigError
from dltrain.data.images.decoding import decode
from dltrain.data.images.depth import white_of
from dltrain.engine.predictor import restore_predictor

SIDE = 8


def pictures(low: int, high: int, count: int = 10) -> np.ndarray:
    """(count, SIDE, SIDE) int64."""
    return np.random.default_rng(low + high).integers(low, high + 1, (count, SIDE, SIDE))


def write(folder: Path, name: str, images: np.ndarray, suffix: str = ".tif") -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / name / f"{number:02d}{suffix}")


def trainer_of(root: Path, **data: Any) -> Trainer:
    about = {"name": "image_folder", "root": str(root), "size": SIDE, "channels": 1, "test": 0.2, "validation": 0.0}
    document = {
        "data": about | data,
        "model": {"name": "mlp", "hidden": [4]},
        "training": {"epochs": 1, "batch_size": 4},
    }
    return build(Experiment.parse(yaml.safe_dump(document), "tiny"), "cpu")


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"])


def notes_of(trainer: Trainer) -> str:
    return "\n".join(map(str, trainer.notes))


@pytest.mark.parametrize(("bits", "white"), [(10, 1023), (12, 4095), (14, 16383), (16, 65535)])
@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_values_of_fewer_bits_in_files_of_16_keep_their_contrast(
    bits: int, white: int, suffix: str, tmp_path: Path
) -> None:
    """One level for all, or the dark class would be as bright as the other one."""
    dark, bright = pictures(0, 2 ** (bits - 4)), pictures(2 ** (bits - 1), 2**bits - 1)
    write(tmp_path, "bright", bright.astype(np.uint16), suffix)
    write(tmp_path, "dark", dark.astype(np.uint16), suffix)
    trainer = trainer_of(tmp_path)
    assert f"read as {bits} bits, 0..{white} becomes 0..255" in notes_of(trainer)
    seen = {image.numpy().tobytes() for image in trainer.parts.train.inputs}  # type: ignore[attr-defined]
    expected = np.rint(np.concatenate([dark, bright]) * 255 / white).astype(np.uint8)
    assert len(seen) == 16 and seen <= {image.tobytes() for image in expected}
    canvas = restore_predictor(trainer.state_dict(), "cpu").layout  # the level travels in the checkpoint
    for name, images in (("bright", bright), ("dark", dark)):
        found = decode(tmp_path / name / f"03{suffix}", 1, canvas)[0].numpy()
        assert np.array_equal(found, np.rint(images[3] * 255 / white).astype(np.uint8))
    streamed = trainer_of(tmp_path, loader="streaming", workers=0, cache=str(tmp_path / "cache"))
    assert {image.numpy().tobytes() for image in next(streamed.parts.train.batches(0)).inputs} <= seen


def test_32_bit_files_of_bytes_are_read_as_bytes(tmp_path: Path) -> None:
    images = pictures(0, 255)
    write(tmp_path, "a", images.astype(np.int32))
    write(tmp_path, "b", images.astype(np.uint8), ".png")
    assert "0..255 becomes 0..255" in notes_of(trainer_of(tmp_path))
    for number in range(10):
        assert torch.equal(decode(tmp_path / f"a/{number:02d}.tif", 1), decode(tmp_path / f"b/{number:02d}.png", 1))
    Image.fromarray(np.full((4, 4), 70000, np.int32)).save(tmp_path / "large.tif")
    with pytest.raises(ConfigError, match=r"large.tif cannot be read: its values are not in 0..65535"):
        decode(tmp_path / "large.tif", 1)


def test_the_smallest_usual_number_of_bits_is_taken() -> None:
    ends = {255: 255, 256: 1023, 1024: 4095, 4095: 4095, 4096: 16383, 16384: 65535, 65535: 65535}
    assert {largest: white_of(largest) for largest in ends} == ends


def test_files_unlike_the_training_are_warned_of(tmp_path: Path) -> None:
    write(tmp_path / "bytes", "a", pictures(0, 255).astype(np.uint8), ".png")
    write(tmp_path / "bytes", "b", pictures(100, 255).astype(np.uint8), ".png")
    write(tmp_path / "deep", "a", pictures(0, 4000).astype(np.uint16))
    write(tmp_path / "deep", "b", pictures(0, 3000).astype(np.uint16))
    runs = {}
    for name in ("bytes", "deep"):
        data = f"{{name: image_folder, root: {tmp_path / name}, size: {SIDE}, channels: 1, validation: 0.0}}"
        (tmp_path / f"{name}.yaml").write_text(
            f"data: {data}\nmodel: {{name: mlp, hidden: [4]}}\ntraining: {{epochs: 1, batch_size: 4}}"
        )
        done = invoke("fit", tmp_path / f"{name}.yaml", "--runs", tmp_path / "runs")
        assert done.exit_code == 0, done.stderr
        runs[name] = done.stdout.strip()
    dark, white = str(tmp_path / "deep/a/00.tif"), str(tmp_path / "white.tif")
    Image.fromarray(np.full((SIDE, SIDE), 50000, np.uint16)).save(white)
    done = invoke("predict", runs["bytes"], dark)
    assert done.exit_code == 0 and f"warning: {dark}: it has 16 bits a value, and none above" in done.stderr
    done = invoke("predict", runs["deep"], dark, white)
    assert done.stderr.count("warning: ") == 1 and f"warning: {white}: its values go up to 50000" in done.stderr
    done = invoke("eval", runs["bytes"], f"data.root={tmp_path / 'deep'}")
    assert "the training had no such files: write them with 8 bits" in " ".join(done.stderr.split())


def test_dark_colours_of_16_bits_are_warned_of(tmp_path: Path) -> None:
    """Pillow reads their upper 8 bits alone: of 12 bits, 4 are left."""
    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(6):
            (tmp_path / name / f"{number}.png").write_bytes(png_16(draw.integers(0, 4096, (SIDE, SIDE, 3))))
    assert "the upper 8 alone are read, and they are at most 15" in notes_of(trainer_of(tmp_path, channels=3))


def png_16(image: np.ndarray) -> bytes:
    """A PNG file of 16 bits a colour, which Pillow does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)
    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_what_has_no_contrast_is_said(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, SIDE, SIDE, 3), dtype=np.uint8)
    images[..., 2] = 9
    images[[3, 17]] = (1, 2, 9)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(40) % 2)
    document = f"data: {{name: arrays, path: {tmp_path}/a.npz, test: 0.0, validation: 0.0}}\nmodel: mlp"
    notes = notes_of(build(Experiment.parse(document + "\ntraining: {batch_size: 8}", "tiny"), "cpu"))
    assert "warning: channel 2 of the training images is 9 everywhere" in notes and "channel 1" not in notes
    assert "warning: 2 of 40 training images have one colour alone, such as number 3" in notes


@pytest.mark.parametrize(
    "images",
    [
        np.arange(192).reshape(12, 4, 4),
        np.arange(192).reshape(12, 4, 4).astype(np.uint16) * 21,
        np.arange(192).reshape(12, 4, 4).astype(np.float64),
        np.arange(192).reshape(12, 4, 4).astype(np.float32) / 191,
        np.arange(192).reshape(12, 4, 4).astype(np.float32) / 60 - 1.234567,
        np.arange(192).reshape(12, 4, 4) % 2 == 0,
        np.arange(192).reshape(12, 4, 4) * 10**6,
    ],
    ids=["int64", "12 bits", "float 0..255", "float 0..1", "standardized", "bool", "large"],
)
def test_the_remedy_for_arrays_of_another_type_is_right(images: np.ndarray, tmp_path: Path) -> None:
    """It is an expression of NumPy; what it gives has the same order of values, over the range of bytes."""
    labels, path = np.arange(12) % 2, tmp_path / "a.npz"
    np.savez(path, images=images, labels=labels)
    experiment = Experiment.parse(f"data: {{name: arrays, path: {path}}}\nmodel: mlp", "tiny")
    with pytest.raises(ConfigError) as caught:
        experiment.data.read()
    message = str(caught.value)
    assert f"must be uint8, values 0..255, not {images.dtype}" in message and str(path) in message
    remedy = re.search(r"(?: by |hold: )(.*)", message)
    assert remedy is not None
    found = eval(remedy[1], {"images": images, "numpy": np})  # of this very test's making
    assert found.dtype == np.uint8 and (np.diff(found.ravel()[np.argsort(images, axis=None, kind="stable")]) >= 0).all()
    assert found.min() == 0 and found.max() >= 185
    np.savez(path, images=found, labels=labels)
    experiment.data.read()


def test_numbers_that_are_none_are_mentioned(tmp_path: Path) -> None:
    images = np.zeros((12, 4, 4), np.float32)
    images[2, 1] = np.nan
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(12) % 2)
    with pytest.raises(ConfigError, match="4 of the values are NaN or infinite"):
        Experiment.parse(f"data: {{name: arrays, path: {tmp_path}/a.npz}}\nmodel: mlp", "tiny").data.read()


@pytest.mark.parametrize(
    ("labels", "remedy"),
    [
        (np.eye(3, dtype=np.int64)[np.arange(12) % 3], "labels.argmax(1)"),
        (np.eye(3, dtype=np.float32)[np.arange(12) % 3], "labels.argmax(1)"),
        (np.arange(12) % 3 + 1, "labels - 1"),
        ((np.arange(12) % 3) * 2, "numpy.unique(labels, return_inverse=True)"),
        ((np.arange(12) % 3).astype(float), "labels.astype(numpy.int64)"),
        (np.arange(12) % 2 == 0, "labels.astype(numpy.int64)"),
        (np.array(["a", "b", "c"])[np.arange(12) % 3], "numpy.unique(labels, return_inverse=True)"),
    ],
    ids=["one-hot", "one-hot floats", "from 1", "gaps", "floats", "bool", "names"],
)
def test_the_remedy_for_labels_is_right(labels: np.ndarray, remedy: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    images = np.zeros((12, 4, 4), np.uint8)
    np.savez(path, images=images, labels=labels)
    data = Experiment.parse(f"data: {{name: arrays, path: {path}}}\nmodel: mlp", "tiny").data
    with pytest.raises(ConfigError) as caught:
        data.read()
    assert f"= {remedy}" in str(caught.value) or f": {remedy}" in str(caught.value)
    found = eval(remedy, {"labels": labels, "numpy": np})  # of this very test's making
    np.savez(path, images=images, labels=found[1] if isinstance(found, tuple) else found)
    data.read()


@pytest.mark.parametrize("kind", ["featurewise_standardize", "featurewise_min_max"])
def test_scaling_of_each_feature_is_that_of_scikit_learn(kind: str, tmp_path: Path) -> None:
    """Over the training part, in training and from a checkpoint; a feature that never varies becomes 0."""
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    images = np.random.default_rng(0).integers(20, 230, (60, 3, SIDE, SIDE), dtype=np.uint8)
    images[:, 1, 2, 3] = 77
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(60) % 2)
    document = f"""
    data: {{name: arrays, path: {tmp_path}/a.npz, scaling: {kind}}}
    model: {{name: mlp, hidden: [4]}}
    training: {{batch_size: 8, epochs: 1}}
    """
    trainer = build(Experiment.parse(document, "tiny"), "cpu")
    pixels = trainer.parts.train.inputs  # type: ignore[attr-defined]
    reference = (StandardScaler() if kind == "featurewise_standardize" else MinMaxScaler()).fit(pixels.flatten(1))
    expected = reference.transform(pixels.flatten(1))
    list(trainer.run())
    restored = restore_predictor(trainer.state_dict(), "cpu").pipeline
    for pipeline in (trainer.parts.pipeline, restored):
        found = pipeline.evaluate(pixels)
        np.testing.assert_allclose(found.flatten(1), expected, atol=1e-6)
        assert not found[:, 1, 2, 3].any()
        assert (pipeline.scaling.invert(found) - pixels).abs().max() < 1e-3
        last = pipeline.evaluate(pixels.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(last, found)
    if kind == "featurewise_min_max":
        first, last = found.amin(0), found.amax(0)
        last[1, 2, 3] = 1
        assert first.abs().max() < 1e-6 and (last - 1).abs().max() < 1e-6
