"""Data sets that are known by name -> arrays: scikit-learn's digits, IDX files, torchvision's, synthetic ones."""

from __future__ import annotations

import contextlib
import gzip
import math
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.parsing import parsing, require_memory
from dltrain.data.random import derive_seed
from dltrain.data.sources import ArraySource
from dltrain.data.targets import Classes
from dltrain.data.types import RawDataset

TEST_SHARE = 0.2
DIGITS = [str(digit) for digit in range(10)]
IDX_CLASSES = {
    "mnist": ("MNIST", DIGITS),
    "fashion_mnist": (
        "FashionMNIST",
        ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"],
    ),
    "kmnist": ("KMNIST", ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]),
}
"""Name -> torchvision's class, and the names of the labels."""
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
TORCHVISION = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "svhn": "SVHN", "stl10": "STL10"}


def read_digits() -> RawDataset:
    """scikit-learn's digits: (1797, 1, 8, 8), with values 0..16 stretched to 0..255."""
    values = _digits()
    images = np.rint(values[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return RawDataset(ArraySource(images, values[:, 64].astype(np.int64)), None, None, Classes(DIGITS), TEST_SHARE)


def _digits() -> np.ndarray:
    """(1797, 65): 64 values 0..16 and the digit. Importing scikit-learn takes most of a second, its file 10 ms."""
    spec = find_spec("sklearn")
    assert spec is not None and spec.origin is not None
    file = Path(spec.origin).with_name("datasets") / "data" / "digits.csv.gz"
    if file.is_file():
        return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    bundle = load_digits()
    return np.concatenate([bundle.data, bundle.target[:, None]], 1)


def read_synthetic(examples: int, classes: int, shape: tuple[int, int, int]) -> RawDataset:
    """A blocky pattern per class plus uniform noise of the same strength: a function of the arguments alone."""
    channels, height, width = shape
    random = np.random.Generator(np.random.PCG64(derive_seed("synthetic", classes, *shape)))
    coarse = random.integers(0, 128, (classes, channels, min(height, 4), min(width, 4)), dtype=np.uint8)
    rows, columns = np.arange(height) * min(height, 4) // height, np.arange(width) * min(width, 4) // width
    patterns = coarse[:, :, rows[:, None], columns]
    labels = np.arange(examples, dtype=np.int64) % classes
    images = random.integers(0, 128, (examples, *shape), dtype=np.uint8)
    for label in range(classes):
        images[label::classes] += patterns[label]
    names = [f"class_{label:0{len(str(classes - 1))}d}" for label in range(classes)]
    return RawDataset(ArraySource(images, labels), None, None, Classes(names), TEST_SHARE)


# -- IDX files (MNIST and its kin)


def read_idx_dataset(name: str, root: str, download: bool) -> RawDataset:
    """The four IDX files of `name`: in `root` itself, in a folder of its name, or where torchvision puts them.

    Raises ConfigError when they are not there and cannot be downloaded.
    """
    library_name, classes = IDX_CLASSES[name]
    raw = Path(root, library_name, "raw")
    failure = None
    folder = _find_idx(name, library_name, root)
    if folder is None and download:
        failure = _download(library_name, root, raw, train=True)
        folder = _find_idx(name, library_name, root)
    if folder is None:
        files = ", ".join(f"{file}.gz" for file in IDX_FILES)
        raise _missing(name, root, [f"expected in {root}, {Path(root, name)} or {raw}: {files}"], failure)
    train_images, train_labels, test_images, test_labels = (_read_idx(_idx_file(folder, file)) for file in IDX_FILES)
    return RawDataset(_idx_source(train_images, train_labels, folder, len(classes)), None,
                 _idx_source(test_images, test_labels, folder, len(classes)), Classes(classes))  # fmt: skip


def _find_idx(name: str, library_name: str, root: str) -> Path | None:
    inside = (f"{library_name}/raw", library_name, name, name.replace("_", "-"), ".")
    folders = (Path(root, folder) for folder in inside)
    return next((f for f in folders if all(_idx_file(f, file).is_file() for file in IDX_FILES)), None)


def _idx_file(folder: Path, file: str) -> Path:
    plain = folder / file
    return plain if plain.is_file() else folder / f"{file}.gz"


def _read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file: two zero bytes, type (8: uint8), number of dimensions, sizes, values.

    No more is inflated than its header tells of, and one byte.
    """
    damaged = ConfigError([Diagnostic(f"{path} is damaged: it is not an IDX file of bytes, or was cut short")])
    with parsing(path, "an IDX file"), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        first = stream.read(4)
        rank = first[3] if first[:3] == b"\0\0\x08" and len(first) == 4 else 0
        sizes = np.frombuffer(stream.read(4 * rank), ">u4").tolist()
        if not rank or len(sizes) != rank:
            raise damaged
        count = math.prod(sizes)
        require_memory(path, "it", count)
        data = stream.read(count + 1)
        if len(data) != count:
            raise damaged
        values: np.ndarray = np.frombuffer(data, np.uint8).reshape(sizes)
        return values


def _idx_source(images: np.ndarray, labels: np.ndarray, folder: Path, classes: int) -> ArraySource:
    if images.ndim != 3 or not images.size or labels.shape != images.shape[:1] or labels.max(initial=0) >= classes:
        message = f"the files in {folder} do not belong together: images {images.shape}, labels {labels.shape}"
        raise ConfigError([Diagnostic(message)])
    return ArraySource(images[:, None].copy(), labels.astype(np.int64))


# -- what torchvision reads


def read_torchvision(name: str, root: str, download: bool) -> RawDataset:
    """CIFAR-10, CIFAR-100, SVHN or STL-10, checked by MD5.

    Raises ConfigError when the files are absent or damaged and cannot be downloaded.
    """
    from torchvision import datasets

    library = getattr(datasets, TORCHVISION[name])
    folder = Path(root, getattr(library, "base_folder", ""))
    by_split = name in ("svhn", "stl10")
    pairs: list[Any] = []
    for split in ("train", "test"):
        arguments: dict[str, Any] = {"split": split} if by_split else {"train": split == "train"}
        try:
            data = library(root, download=False, **arguments)
        except Exception:  # absent, damaged, or what its parser makes of it
            failure = _download(TORCHVISION[name], root, folder, **arguments) if download else None
            try:
                data = library(root, download=False, **arguments)
            except Exception:
                raise _missing(name, root, _expected(library, folder), failure) from None
        images = data.data if by_split else data.data.transpose(0, 3, 1, 2)
        labels = np.asarray(data.labels if by_split else data.targets, dtype=np.int64)
        pairs.append(ArraySource(np.ascontiguousarray(images), labels))
    classes = DIGITS if name == "svhn" else list(data.classes)
    return RawDataset(pairs[0], None, pairs[1], Classes(classes))


def _expected(library: Any, folder: Path) -> list[str]:
    """What should lie in `folder`, and what of it does not or is not as published."""
    if hasattr(library, "split_list"):
        files = [
            (library.split_list[s][1], library.split_list[s][2], library.split_list[s][0]) for s in ("train", "test")
        ]
        origin = ", ".join(url for _, _, url in files)
    else:
        files = [(file, md5, "") for file, md5 in library.train_list + library.test_list]
        meta = getattr(library, "meta", None)
        files += [(meta["filename"], meta["md5"], "")] if meta else []
        origin = f"{library.url}, unpacked in {folder.parent}"
    notes = [f"expected in {folder}: {', '.join(file for file, _, _ in files)}"]
    absent = [file for file, _, _ in files if not (folder / file).is_file()]
    if len(absent) < len(files):
        notes.append(f"absent: {', '.join(absent)}" if absent else "all are there, but some are not as published (MD5)")
    return [*notes, f"published at {origin}"]


def _download(library_name: str, root: str, folder: Path, **arguments: Any) -> str | None:
    """Let torchvision download; why it failed, or None. A failure leaves no empty folders behind."""
    from torchvision import datasets

    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
            getattr(datasets, library_name)(root, download=True, **arguments)
    except Exception as error:  # whatever networks, archives and disks come up with
        for path in created:
            with contextlib.suppress(OSError):
                path.rmdir()
        return " ".join(str(error).split()) or type(error).__name__
    return None


def _missing(name: str, root: str, notes: list[str], failure: str | None) -> ConfigError:
    if failure is not None:
        notes = [*notes, f"downloading failed: {failure}"]
    else:
        notes = [*notes, "set `download: true` to download it"]
    return ConfigError([Diagnostic(f"data set `{name}` is not in {Path(root).absolute()}", notes=notes)])
