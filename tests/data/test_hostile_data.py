"""Data files that are damaged or lie about their size: a located error, and no more is inflated than they tell of."""

from __future__ import annotations

import gzip
import io
import random
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dltrain import Experiment
from dltrain.config import ConfigError
from dltrain.data import parsing
from dltrain.data.readers import IDX_FILES


def arrays_at(path: Path) -> None:
    Experiment.parse(f"data: {{name: arrays, path: {path}}}\nmodel: mlp", "tiny").data.load()


def mnist_in(folder: Path) -> None:
    Experiment.parse(f"data: {{name: mnist, root: {folder}, download: false}}\nmodel: mlp", "tiny").data.load()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small .npz, and the four IDX files."""
    draw, content = np.random.default_rng(0), io.BytesIO()
    images, labels = draw.integers(0, 256, (80, 6, 6), dtype=np.uint8), np.arange(80, dtype=np.uint8) % 10
    np.savez_compressed(content, images=images, labels=labels, classes=[f"class {k}" for k in range(10)])
    files = {"a.npz": content.getvalue()}
    for name in IDX_FILES:
        array = images if "images" in name else labels
        files[f"{name}.gz"] = gzip.compress(
            struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
        )
    return files


@pytest.mark.parametrize("name", ["a.npz", f"{IDX_FILES[0]}.gz", f"{IDX_FILES[3]}.gz", IDX_FILES[0]])
def test_damaged_files_give_located_errors(name: str, sound: dict[str, bytes], tmp_path: Path) -> None:
    """Cut, with flipped bytes, with bytes of another file: whatever the parser makes of it."""
    draw = random.Random(name)
    for file, content in sound.items():
        (tmp_path / file).write_bytes(content)
    whole = sound[name] if name in sound else gzip.decompress(sound[f"{name}.gz"])
    if name not in sound:
        (tmp_path / f"{name}.gz").unlink()
    for attempt in range(150):
        data = bytearray(whole)
        if attempt % 3 == 0:
            del data[draw.randrange(len(data)) :]
        for _ in range(attempt % 3 * draw.choice([1, 1, 30])):
            data[draw.randrange(min(len(data), draw.choice([64, len(data)])))] = draw.randrange(256)
        (tmp_path / name).write_bytes(data)
        try:
            arrays_at(tmp_path / name) if name == "a.npz" else mnist_in(tmp_path)
        except ConfigError as error:
            assert len(str(error)) < 3000


def npz_of(path: Path, header: bytes, content: bytes = b"", name: str = "images") -> None:
    """An .npz whose array has this header."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        text = header + b" " * (-len(header) % 64) + b"\n"
        start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text))
        archive.writestr(f"{name}.npy", start + text + content)
        labels = io.BytesIO()
        np.save(labels, np.arange(20) % 2)
        archive.writestr("labels.npy", labels.getvalue())


def test_an_npz_is_refused_by_its_header_before_it_is_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, header = tmp_path / "a.npz", "{'descr': '|u1', 'fortran_order': False, 'shape': (%s), }"
    npz_of(path, (header % "20, 10**9, 10**9").encode())
    with pytest.raises(ConfigError, match=r"a.npz is damaged or is not an .npz file"):
        arrays_at(path)
    npz_of(path, (header % "20, 1000000000, 1000000000").encode())
    with pytest.raises(ConfigError, match=r"a.npz: `images` is damaged: its header tells of 20,000,000,000"):
        arrays_at(path)
    npz_of(path, (header % "20, 1000, 1000").encode(), bytes(20 * 10**6))
    assert path.stat().st_size < 10**5
    monkeypatch.setattr(parsing, "free_main_memory", lambda: 10**7)
    with pytest.raises(ConfigError, match=r"a.npz: `images` takes 20.0 MB, and 10.0 MB of memory are free"):
        arrays_at(path)


def test_no_more_of_an_idx_file_is_inflated_than_it_tells_of(
    sound: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file, content in sound.items():
        (tmp_path / file).write_bytes(content)
    images = tmp_path / f"{IDX_FILES[0]}.gz"
    images.write_bytes(gzip.compress(gzip.decompress(sound[images.name]) + bytes(10**8)))
    asked: list[int] = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda file, size=-1: asked.append(size) or read(file, size))
    with pytest.raises(ConfigError, match="is damaged"):
        mnist_in(tmp_path)
    assert max(asked) == 80 * 36 + 1 and min(asked) > 0
    images.write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 2**31)))
    with pytest.raises(ConfigError, match="of memory are free"):
        mnist_in(tmp_path)


@pytest.mark.parametrize(
    "arrays",
    [
        {"images": np.zeros((20, 0, 4), np.uint8)}, {"images": np.zeros((20, 4, 4), "M8[s]")},
        {"images": np.zeros((20, 4, 4), [("a", "u1")])}, {"images": np.zeros((20, 4, 4), complex)},
        {"images": np.zeros((), np.uint8)}, {"labels": np.full(20, 2**63, np.uint64)},
        {"labels": np.zeros(20, "M8[s]")}, {"labels": np.zeros((), np.int64)}, {"labels": np.zeros((20, 0), np.int64)},
        {"classes": np.array([b"\xff\xfe", b"b"])}, {"classes": np.zeros((), "U3")}, {"classes": np.zeros(0, "U3")},
    ],
    ids=str,
)  # fmt: skip
def test_arrays_of_odd_kinds_give_located_errors(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    plain = {"images": np.zeros((20, 4, 4), np.uint8), "labels": np.arange(20) % 2}
    np.savez(tmp_path / "a.npz", **(plain | arrays))
    with pytest.raises(ConfigError, match=r"a\.npz"):
        arrays_at(tmp_path / "a.npz")
