"""An .npz file -> arrays: every way in which one can be unfit is said."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from dltrain.config import ConfigError, Diagnostic, suggest
from dltrain.data.array_rows import table_of
from dltrain.data.array_targets import named, target_of, values
from dltrain.data.images.depth import LARGEST, white_of
from dltrain.data.parsing import parsing, require_memory
from dltrain.data.sources import ArraySource
from dltrain.data.tables.source import RowSource
from dltrain.data.targets import Classes, TargetSpec
from dltrain.data.types import RawDataset

KEYS = (
    "images", "inputs", "labels", "targets", "test_images", "test_inputs", "test_labels", "test_targets", "classes",
    "names", "features",
)  # fmt: skip
ROWS = "rows of numbers are called `inputs`, (N, D)"


def read_arrays(path: str, layout: str, test: float) -> RawDataset:
    """The splits in the .npz file at `path`. layout: auto, channels_first or channels_last.

    Raises ConfigError when the file is missing or its arrays are unfit.
    """
    arrays = _read(path)
    target = _target(path, arrays)
    if "inputs" in arrays:
        rows = _rows(path, arrays, "", target)
        given = _rows(path, arrays, "test_", target) if "test_inputs" in arrays else None
        return RawDataset(rows, None, given, target, test if given is None else 0.0)
    train = _source(path, arrays, "", layout, target)
    if "test_images" not in arrays:
        return RawDataset(train, None, None, target, test)
    tested = _source(path, arrays, "test_", layout, target)
    if tested.images.shape[1:] != train.images.shape[1:]:
        shapes = f"{_text(tested.images.shape[1:])}, not {_text(train.images.shape[1:])} as in `images`"
        raise _error(path, f"`test_images` are {shapes}")
    return RawDataset(train, None, tested, target)


def targets_of(path: str) -> type[TargetSpec]:
    """What the examples of the file are to be answered with, by its headers; classes, where it is not there or unfit,
    which `read_arrays` says."""
    try:
        with zipfile.ZipFile(path) as archive:
            if "labels.npy" not in archive.namelist():
                with archive.open("targets.npy") as stream:
                    return target_of(_header(stream)[1]) or Classes
    except Exception:  # of damaged files, parsers raise many kinds
        return Classes
    return Classes


def holds_rows(path: str) -> bool:
    """Whether the examples of the file are rows of numbers; false where it is not there or unfit, which `read_arrays`
    says."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "inputs.npy" in archive.namelist()
    except Exception:  # of damaged files, parsers raise many kinds
        return False


def _target(path: str, arrays: dict[str, np.ndarray]) -> TargetSpec:
    if "labels" in arrays:
        return Classes(_class_names(path, arrays))
    names = arrays.get("names")
    return named(path, arrays["targets"], None if names is None else _names(path, "names", names))


def _read(path: str) -> dict[str, np.ndarray]:
    if not Path(path).is_file():
        raise ConfigError([Diagnostic(f"there is no file {Path(path).absolute()}")])
    with parsing(path, "an .npz file"), Path(path).open("rb") as stream:
        if stream.read(6) == b"\x93NUMPY":
            raise _error(path, "it holds one array; save both with numpy.savez(path, images=..., labels=...)")
        with zipfile.ZipFile(stream) as archive:
            names = [member.removesuffix(".npy") for member in archive.namelist()]
            arrays = {name: _array(path, archive, name) for name in KEYS if name in names}
    if "labels" in arrays and "targets" in arrays:
        raise _error(path, "it has `labels` and `targets`", "labels: one class for each image; targets: all else")
    learned = "targets" if "targets" in arrays else "labels"
    examples = "inputs" if "inputs" in arrays else "images"
    other = "images" if examples == "inputs" else "inputs"
    for key in (other, f"test_{other}"):
        if key in arrays and examples in arrays:
            raise _error(path, f"it has `{examples}` and `{key}`", f"images are pictures; {ROWS}")
    for key in (examples, learned, *([f"test_{learned}"] if f"test_{examples}" in arrays else [])):
        if key not in arrays:
            near = suggest(key, names)
            hint = f"; is `{near}` meant?" if near else ""
            raise _error(path, f"it has no `{key}`", f"it has: {', '.join(names)}{hint}")
    return arrays


def _array(path: str, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of the file. Its header says how large it is, before anything is inflated."""
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as stream:
        shape, dtype = _header(stream)
        need = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise _error(path, f"`{name}` holds Python objects, which are never loaded; save plain arrays")
        if stream.tell() + need != member.file_size:
            raise _error(path, f"`{name}` is damaged: its header tells of {need:,} bytes, and it has others")
    require_memory(path, f"`{name}`", need)
    with archive.open(member) as stream:
        array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
        return array


def layout_of(path: str) -> tuple[str, str]:
    """Where the images of a sound file, which is not read, have their channels, and why."""
    with zipfile.ZipFile(path) as archive, archive.open("images.npy") as stream:
        shape = _header(stream)[0]
    if len(shape) == 3:
        return "channels_first", f"images of shape {shape} have no dimension of channels"
    return "channels_last" if shape[3] <= 4 else "channels_first", f"by the shape {shape} of images"


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and the type of the array that follows in the stream."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return tuple(shape), dtype


def _class_names(path: str, arrays: dict[str, np.ndarray]) -> list[str]:
    if "classes" not in arrays:
        labels = arrays["labels"]
        if not np.issubdtype(labels.dtype, np.integer) or not labels.size:
            return []  # said by _source
        return [str(k) for k in range(min(int(labels.max()) + 1, labels.size))]
    return _names(path, "classes", arrays["classes"])


def _names(path: str, key: str, names: np.ndarray) -> list[str]:
    """The texts in an array, all different."""
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise _error(path, f"`{key}` must be a list of names, not {names.dtype} of shape {names.shape}")
    with parsing(path, f"a list of names in `{key}`"):
        found = [name.decode() if isinstance(name, bytes) else str(name) for name in names.tolist()]
    if len(set(found)) != len(found):
        one = "a class" if key == "classes" else "one"
        raise _error(path, f"`{key}` names {one} twice")
    return found


def _source(path: str, arrays: dict[str, np.ndarray], prefix: str, layout: str, target: TargetSpec) -> ArraySource:
    images, name = arrays[f"{prefix}images"], f"{prefix}images"
    if images.dtype != np.uint8:
        message = f"`{name}` must be uint8, values 0..255, not {images.dtype}"
        raise _error(path, message, _as_bytes(images, name), *([ROWS] if images.dtype.kind in "iuf" else []))
    learned = _learned(path, arrays, prefix, name, target)
    return ArraySource(np.ascontiguousarray(_nchw(path, images, name, layout)), learned, f"{path}: {name}")


def _rows(path: str, arrays: dict[str, np.ndarray], prefix: str, target: TargetSpec) -> RowSource:
    name, features = f"{prefix}inputs", arrays.get("features")
    names = None if features is None else _names(path, "features", features)
    if prefix and arrays[name].shape[1:] != arrays["inputs"].shape[1:]:
        shapes = f"{_text(arrays[name].shape)}, not {_text(arrays['inputs'].shape[1:])} numbers a row as `inputs`"
        raise _error(path, f"`{name}` are {shapes}")
    table = table_of(path, name, arrays[name], names)
    return RowSource(table, _learned(path, arrays, prefix, name, target))


def _learned(path: str, arrays: dict[str, np.ndarray], prefix: str, name: str, target: TargetSpec) -> np.ndarray:
    """The targets of as many examples as the array `name` has."""
    if "targets" not in arrays:
        return _labels(path, arrays, prefix, name, len(target.names))
    count = len(arrays[name]) if arrays[name].ndim else 0
    return values(path, f"{prefix}targets", arrays[f"{prefix}targets"], target, count, name.removeprefix("test_"))


def _labels(path: str, arrays: dict[str, np.ndarray], prefix: str, of: str, classes: int) -> np.ndarray:
    """(N,) int64, of as many examples as the array `of` has."""
    images, labels, name = arrays[of], arrays[f"{prefix}labels"], f"{prefix}labels"
    if not np.issubdtype(labels.dtype, np.integer):
        raise _error(path, f"`{name}` must be integers 0, 1, ..., not {labels.dtype}", *_as_labels(labels, name))
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim != 1 or labels.shape != images.shape[:1] or not len(labels):
        shapes = f"{labels.shape}, with {of} {images.shape}"
        message = (
            f"`{name}` must be one label {'an image' if of.endswith('images') else 'a row'}, and have shape {shapes}"
        )
        raise _error(path, message, *_as_labels(labels, name))
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        raise _error(path, f"`{name}` must be 0, 1, ..., and one is {low}")
    if high >= classes:
        limit = f"{classes} names in `classes`" if "classes" in arrays else f"{len(arrays['labels'])} examples"
        raise _error(path, f"`{name}` go up to {high}, with {limit}; they must be 0, 1, ..., without gaps")
    if not prefix and "classes" not in arrays and (absent := np.setdiff1d(np.arange(classes), labels)).size:
        note = f"{name} - {low} begins with 0" if low == absent.size else _RENUMBERED.format(name)
        raise _error(path, f"`{name}` must be 0, 1, ..., without gaps, and none is {absent[0]}", note)
    return labels.astype(np.int64)


def _as_bytes(images: np.ndarray, name: str) -> str:
    """How images of another type become bytes, by what values they have."""
    if not images.size or images.dtype.kind not in "biuf":
        return "they must be numbers"
    if images.dtype.kind == "b":
        return f"false and true become black and white by {name}.astype(numpy.uint8) * 255"
    if images.dtype.kind == "f" and (bad := int(images.size - np.isfinite(images).sum())):
        return f"{bad:,} of the values are NaN or infinite: leave those images out, or replace the values, first"
    low, high = images.min().item(), images.max().item()
    have = f"the values are {low:.4g} to {high:.4g}"
    if low < 0:
        stretched = f"({name} + {-low:.4g}) * (255 / {high - low:.4g})"
        return f"{have}, and become bytes by ({stretched}).round().astype(numpy.uint8)"
    if images.dtype.kind == "f" and high <= 1:
        return f"values 0..1 become bytes by (255 * {name}).round().astype(numpy.uint8)"
    if high <= 255:
        rounded = ".round()" if images.dtype.kind == "f" else ""
        return f"{have}, which bytes can hold: {name}{rounded}.astype(numpy.uint8)"
    white = white_of(int(high)) if high <= LARGEST else high
    return f"{have}, and become bytes by ({name} * (255 / {white})).round().astype(numpy.uint8)"


_RENUMBERED = "numpy.unique({}, return_inverse=True) gives the names of the classes, and labels without gaps"


def _as_labels(labels: np.ndarray, name: str) -> list[str]:
    """How labels of another type or shape become indices, if it can be told from them."""
    if labels.ndim == 2 and labels.dtype.kind in "biuf" and ((labels != 0).sum(1) == 1).all():
        return [f"they look one-hot: {name}.argmax(1) gives indices"]
    if labels.dtype.kind == "f" and (labels == np.floor(labels)).all():
        return [f"{name}.astype(numpy.int64) keeps their values"]
    if labels.dtype.kind == "b":
        return [f"{name}.astype(numpy.int64) gives 0 for false and 1 for true"]
    return [_RENUMBERED.format(name)] if labels.dtype.kind in "US" else []


def _nchw(path: str, images: np.ndarray, name: str, layout: str) -> np.ndarray:
    """(N, C, H, W)."""
    if not images.size:
        raise _error(path, f"`{name}` of shape {images.shape} holds no pixels")
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        notes = [ROWS] if images.ndim == 2 else []
        raise _error(
            path, f"`{name}` must be (N, H, W), (N, H, W, C) or (N, C, H, W), not of shape {images.shape}", *notes
        )
    first, last = images.shape[1] <= 4, images.shape[3] <= 4
    if layout == "auto" and first == last:
        note = "write `layout: channels_last` for (N, H, W, C) or `layout: channels_first` for (N, C, H, W)"
        raise _error(path, f"`{name}` of shape {images.shape} does not show where its channels are", note)
    return images.transpose(0, 3, 1, 2) if layout == "channels_last" or (layout == "auto" and last) else images


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _error(path: str, message: str, *notes: str) -> ConfigError:
    return ConfigError([Diagnostic(f"{path}: {message}", notes=notes)])
