"""Image files that are thin, huge, damaged or none: what is read, what is refused, and what is said."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torchvision.transforms.functional import InterpolationMode, center_crop, resize

from dltrain import Experiment, build
from dltrain.commands.fit import fit, resume
from dltrain.config import ConfigError
from dltrain.console.display import Display
from dltrain.data.datasets import ImageFolder
from dltrain.data.images.decoding import decode, load_files
from dltrain.data.types import Canvas

draw = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return draw.integers(0, 256, shape, dtype=np.uint8)


def placed(file: Path, canvas: Canvas) -> np.ndarray:
    return load_files(str(file.parent), [file.name], 3, canvas)[0][0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("crop", [1.0, 0.875])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(4, 6000), (7000, 3)])
def test_the_centre_of_a_thin_image_is_that_of_the_whole(
    tmp_path: Path, shape: tuple[int, int], interpolation: Any, crop: float
) -> None:
    pixels = 64 + noise(*shape, 3) // 2  # so that nothing overshoots, which torch and Pillow cut off at other times
    Image.fromarray(pixels).save(tmp_path / "thin.png")
    found = placed(tmp_path / "thin.png", Canvas(56, 48, "crop", interpolation, crop))
    short = 56 / crop if shape[0] < shape[1] else 48 / crop
    whole = resize(torch.from_numpy(pixels).permute(2, 0, 1), int(short), InterpolationMode(interpolation))
    expected = center_crop(whole, [56, 48]).permute(1, 2, 0).numpy()
    assert np.abs(found.astype(int) - expected).max() <= 2


def test_a_thin_image_takes_memory_for_what_is_kept_of_it(tmp_path: Path) -> None:
    pixels = torch.from_numpy(noise(3, 1, 20_000))
    from dltrain.data.images.decoding import place

    tracemalloc.start()
    place(pixels, Canvas(224, 224, "crop"))
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_an_image_larger_than_allowed_is_refused_and_named(tmp_path: Path) -> None:
    Image.new("1", (400, 300)).save(tmp_path / "scan.png")
    with pytest.raises(ConfigError) as caught:
        decode(tmp_path / "scan.png", 1, Canvas(8, 8, max_pixels=119_999))
    assert "has 120,000 pixels, more than the 119,999 of `data.max_pixels`" in str(caught.value)
    assert "write `max_pixels: 120000`" in str(caught.value) and "undamaged" not in str(caught.value)
    assert decode(tmp_path / "scan.png", 1, Canvas(8, 8, max_pixels=120_000)).shape == (1, 300, 400)


def test_pillows_own_limit_and_warnings_have_no_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for number in range(8):
        Image.new("1", (60, 30 + 10 * number)).save(tmp_path / f"{number}.png")  # warned of, then refused
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = [f"{number}.png" for number in range(8)]
        assert load_files(str(tmp_path), names, 3, Canvas(8, 8, "crop"), threads=4)[0].shape == (8, 3, 8, 8)
    assert Image.MAX_IMAGE_PIXELS == 1000


def png(*chunks: tuple[bytes, bytes], last: bool) -> tuple[bytes, np.ndarray]:
    """A PNG file with more chunks before or behind its pixels, and the pixels."""
    pixels, stream = noise(16, 16, 3), io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    data = stream.getvalue()
    more = b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    place = len(data) - 12 if last else 33
    return data[:place] + more + data[place:], pixels


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("head", [(b"zTXt", b"Comment\0\0"), (b"iCCP", b"profile\0\0"), (b"iTXt", b"C\0\1\0\0\0")])
def test_large_texts_in_a_png_file_do_not_matter(tmp_path: Path, head: tuple[bytes, bytes], last: bool) -> None:
    data, pixels = png((head[0], head[1] + zlib.compress(b"x" * 3_000_000)), (b"tEXt", b"A\0b"), last=last)
    (tmp_path / "a.png").write_bytes(data)
    assert np.array_equal(decode(tmp_path / "a.png", 3).permute(1, 2, 0).numpy(), pixels)


def unfit_files(folder: Path) -> dict[str, str]:
    """Files that cannot be read, by name, and what is to be said of each."""
    folder.mkdir(parents=True)
    whole = Image.fromarray(noise(50, 50, 3))
    for name in ("cut.jpg", "cut.png", "cut.bmp", "cut.gif"):
        whole.save(folder / name)
        (folder / name).write_bytes((folder / name).read_bytes()[:-700])
    Image.fromarray(draw.random((9, 9), dtype=np.float32)).save(folder / "float.tif")
    Image.new("1", (300, 300)).save(folder / "huge.png")
    content = {
        "page.jpg": b"<!DOCTYPE html><html>404</html>", "lfs.png": b"version https://git-lfs.github.com/spec/v1\noid x",
        "empty.jpg": b"", "phone.jpg": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "noise.webp": b"no image at all",
    }  # fmt: skip
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return {
        "cut.jpg": "fetch it again", "cut.png": "fetch it again", "cut.bmp": "fetch it again", "cut.gif": "cut.gif",
        "float.tif": "8 or 16 bits", "huge.png": "max_pixels: 90000", "page.jpg": "a web page",
        "lfs.png": "git lfs pull", "empty.jpg": "is empty (0 bytes)", "phone.jpg": "a heic file",
        "noise.webp": "is not an image",
    }  # fmt: skip


def test_each_unfit_file_gets_the_remedy_of_its_kind(tmp_path: Path) -> None:
    for name, words in unfit_files(tmp_path / "x").items():
        with pytest.raises(ConfigError) as caught:
            decode(tmp_path / "x" / name, 3, Canvas(8, 8, max_pixels=80_000))
        assert name in str(caught.value) and words in str(caught.value), str(caught.value)


def test_what_is_no_regular_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("/nowhere.png")
    for name, words in (("pipe.png", "is a named pipe, which is never opened"), ("link.png", "leads nowhere")):
        with pytest.raises(ConfigError, match=words):
            decode(tmp_path / name, 3)
    with pytest.raises(ConfigError, match="is a device"):
        decode("/dev/zero", 3)


def test_the_limit_of_an_experiment_reaches_its_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.fromarray(noise(20, 20 + number, 3)).save(tmp_path / name / f"{number}.png")
    assert ImageFolder(root=str(tmp_path), validation=0, max_pixels=500).load().train.files.max_pixels == 500  # type: ignore[union-attr]


# -- all at once, or skipped


def folder_with_unfit_files(root: Path) -> list[str]:
    """Two classes with 12 sound images each, and files that cannot be read; their names."""
    names = list(unfit_files(root / "a"))
    (root / "b").mkdir()
    for number in range(24):
        Image.fromarray(noise(30, 30 + number % 3, 3)).save(root / "ab"[number % 2] / f"{number}.png")
    return names


def experiment_of(tmp_path: Path, **data: Any) -> Experiment:
    data = {"name": "image_folder", "root": str(tmp_path / "data"), "size": 8, "max_pixels": 80_000} | data
    document = {
        "data": data, "model": {"name": "mlp", "hidden": [4]}, "optimizer": {"name": "sgd", "lr": 0.01},
        "training": {"epochs": 2, "batch_size": 8, "compile": False},
    }  # fmt: skip
    return Experiment.parse(yaml.safe_dump(document), "tiny")


@pytest.mark.parametrize("data", [{"loader": "resident"}, {"loader": "streaming", "workers": 0}, {"copies": "allow"}])
def test_all_files_that_cannot_be_read_are_named_before_anything_is_made(tmp_path: Path, data: Any) -> None:
    names = folder_with_unfit_files(tmp_path / "data")
    with pytest.raises(ConfigError) as caught:
        fit(experiment_of(tmp_path, **data), None, "cpu", Display(), runs=tmp_path / "runs")
    assert all(name in str(caught.value) for name in names) and "on_error: skip" in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_skipped_files_are_counted_and_listed(tmp_path: Path) -> None:
    names = folder_with_unfit_files(tmp_path / "data")
    code, run = fit(experiment_of(tmp_path, on_error="skip"), None, "cpu", Display(), runs=tmp_path / "runs")
    log, about = (run.path / "log.txt").read_text(), run.read_json("environment.json")
    assert code == 0 and f"{len(names)} files are skipped" in log and "; 24 are left" in log
    for name in names:
        assert f"skipped: {tmp_path / 'data/a' / name}" in log
        assert sum(name in text for text in about["skipped"]) == 1


def test_skipping_is_as_if_the_files_were_not_there(tmp_path: Path) -> None:
    names = folder_with_unfit_files(tmp_path / "data")
    with_them = build(experiment_of(tmp_path, on_error="skip"), "cpu").about["fingerprint"]
    again = build(experiment_of(tmp_path, on_error="skip"), "cpu").about["fingerprint"]
    for name in names:
        (tmp_path / "data/a" / name).unlink()
    assert with_them == again == build(experiment_of(tmp_path), "cpu").about["fingerprint"]


def test_a_resume_with_another_set_of_skipped_files_is_refused(tmp_path: Path) -> None:
    folder_with_unfit_files(tmp_path / "data")
    _, run = fit(experiment_of(tmp_path, on_error="skip"), None, "cpu", Display(), runs=tmp_path / "runs")
    (tmp_path / "data/a/cut.png").write_bytes((tmp_path / "data/a/0.png").read_bytes())
    Image.fromarray(noise(30, 30, 3)).save(tmp_path / "data/a/cut.png")
    with pytest.raises(ConfigError, match="the data has changed"):
        resume(str(run.path), "cpu", Display())
