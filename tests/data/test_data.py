"""Data sets, the split rule, the canvas and the scaling, through their public surfaces."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from dltrain.config import ConfigError
from dltrain.config.section import field_docs
from dltrain.data.base import Dataset
from dltrain.data.images.decoding import decode, load_files, place, place_all
from dltrain.data.loading.scaling import Scaling, pixel_covariance
from dltrain.data.sources import ArraySource, FileSource
from dltrain.data.splitting import class_quotas, divide
from dltrain.data.targets import Classes
from dltrain.data.types import Canvas, ImageFiles, Interpolation, RawDataset, Splits

SHARED = Path(__file__).parents[3] / "shared" / "data"
SUBSTANCE = np.random.Generator(np.random.PCG64(0))


def dataset(name: str, **options: object) -> Dataset:
    entry = Dataset.parse({"name": name, **options})
    assert isinstance(entry, Dataset)
    return entry


def refusal(entry: Dataset) -> str:
    """The message with its notes of the ConfigError that loading raises."""
    with pytest.raises(ConfigError) as caught:
        entry.load()
    return "\n".join(d.render() for d in caught.value.diagnostics)


def keys(source: object) -> set[bytes]:
    assert isinstance(source, (ArraySource, FileSource))
    return set(source.keys())


def digest(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=16).digest()


def held_out(source: ArraySource, share: float) -> ArraySource:
    classes = [str(label) for label in range(int(source.targets.max()) + 1)]
    found = divide(RawDataset(source, None, None, Classes(classes), share), 0).test
    assert isinstance(found, ArraySource)
    return found


def random_images(*shape: int) -> np.ndarray:
    return SUBSTANCE.integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


# -- the split rule


def test_validation_is_the_lowest_content_hashes_of_every_class() -> None:
    splits = dataset("synthetic", examples=200, classes=4, shape=[1, 5, 7], validation=0.1).load()
    assert splits.validation is not None and splits.test is not None
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (144, 16, 40)
    assert np.bincount(splits.validation.targets).tolist() == [4] * 4
    for label in range(4):
        taken, left = (
            [digest(key) for key in keys(part.subset(np.flatnonzero(part.targets == label)))]
            for part in (splits.validation, splits.train)
        )
        assert max(taken) < min(left)
    assert not keys(splits.train) & keys(splits.validation)
    assert not keys(splits.test) & (keys(splits.train) | keys(splits.validation))


def test_test_split_does_not_depend_on_the_validation_split() -> None:
    with_it, without = dataset("digits").load(), dataset("digits", validation=0).load()
    assert without.validation is None and with_it.validation is not None
    assert keys(with_it.test) == keys(without.test)
    assert keys(with_it.train) | keys(with_it.validation) == keys(without.train)
    assert with_it.fingerprint == without.fingerprint


def test_as_a_data_set_grows_at_most_boundary_examples_move() -> None:
    images, labels = random_images(800, 1, 4, 4), np.arange(800, dtype=np.int64) // 400
    kept = np.arange(800) % 400 < 300
    before = held_out(ArraySource(images[kept], labels[kept]), 0.1)
    after = held_out(ArraySource(images, labels), 0.1)
    for label in range(2):
        newcomers = {image.tobytes() for image in images[~kept & (labels == label)]}
        was, is_ = (keys(part.subset(np.flatnonzero(part.targets == label))) for part in (before, after))
        assert len(was - is_) <= len(newcomers & is_)
        ranked = sorted((digest(image.tobytes()), image.tobytes()) for image in images[labels == label])
        assert is_ == {key for _, key in ranked[:40]}


def test_the_order_of_the_examples_does_not_matter() -> None:
    images, labels = random_images(100, 1, 4, 4), np.arange(100) % 3
    source = ArraySource(images, labels)
    turned = source.subset(np.arange(100)[::-1])
    one, other = (held_out(part, 0.2) for part in (source, turned))
    assert keys(one) == keys(other)


@pytest.mark.parametrize(
    ("share", "counts", "expected"),
    [(0.1, [50, 25, 14], [5, 2, 1]), (10, [50, 30, 20], [5, 3, 2]), (7, [10, 10, 10], [3, 2, 2]), (1, [1, 5], [0, 1])],
)
def test_quotas(share: float, counts: list[int], expected: list[int]) -> None:
    assert class_quotas(share, np.array(counts)).tolist() == expected


def test_a_split_that_leaves_a_class_empty_is_refused() -> None:
    options = {"examples": 50, "classes": 10, "shape": [1, 4, 4]}
    assert "the validation split would have no example of class `class_0` (and 9 other" in refusal(
        dataset("synthetic", validation=0.1, **options)
    )
    assert "the training split would have no example" in refusal(dataset("synthetic", validation=39, **options))
    assert "takes all 40 examples" in refusal(dataset("synthetic", validation=40, **options))
    assert len(dataset("synthetic", validation=10, **options).load().train) == 30


# -- data sets


def test_digits() -> None:
    splits = dataset("digits", validation=0).load()
    assert isinstance(splits.train, ArraySource) and isinstance(splits.test, ArraySource)
    assert splits.train.images.shape == (1438, 1, 8, 8) and len(splits.test) == 359
    assert splits.train.images.dtype == np.uint8 and splits.train.images.max() == 255
    assert splits.classes == list("0123456789")


def test_digits_are_read_as_scikit_learn_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.datasets import load_digits

    from dltrain.data import readers

    bundle, found = load_digits(), readers._digits()
    assert np.array_equal(found[:, :64], bundle.data) and np.array_equal(found[:, 64], bundle.target)
    monkeypatch.setattr(readers.Path, "is_file", lambda _: False)
    assert np.array_equal(readers._digits(), found)


def test_synthetic_is_a_function_of_its_options_and_learnable() -> None:
    entry = dataset("synthetic", examples=300, classes=3, shape=[2, 6, 9])
    one, two = entry.load(), entry.load()
    assert one.fingerprint == two.fingerprint
    assert isinstance(one.train, ArraySource) and isinstance(one.test, ArraySource)
    assert one.train.images.shape[1:] == (2, 6, 9)
    centres = np.stack([one.train.images[one.train.targets == k].mean(0) for k in range(3)])
    distances = ((one.test.images[:, None] - centres) ** 2).sum((2, 3, 4))
    assert (distances.argmin(1) == one.test.targets).mean() == 1


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    content = header + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("folder", ["", "fashion-mnist", "fashion_mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files(tmp_path: Path, folder: str, suffix: str) -> None:
    images, labels = random_images(40, 28, 28), np.arange(40, dtype=np.uint8) % 10
    for part in ("train", "t10k"):
        write_idx(tmp_path / folder / f"{part}-images-idx3-ubyte{suffix}", images)
        write_idx(tmp_path / folder / f"{part}-labels-idx1-ubyte{suffix}", labels)
    splits = dataset("fashion_mnist", root=str(tmp_path), validation=0).load()
    assert isinstance(splits.train, ArraySource) and splits.test is not None
    assert np.array_equal(splits.train.images[:, 0], images) and np.array_equal(splits.test.targets, labels)
    assert splits.classes[9] == "Ankle boot"
    damaged = tmp_path / folder / f"train-images-idx3-ubyte{suffix}"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert f"{damaged} is damaged" in refusal(dataset("fashion_mnist", root=str(tmp_path)))


def test_absent_data_says_where_it_is_expected_and_leaves_no_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("network is unreachable")

    for module in ("mnist", "cifar", "svhn", "stl10"):
        for function in ("download_and_extract_archive", "download_url"):
            monkeypatch.setattr(f"torchvision.datasets.{module}.{function}", offline, raising=False)
    root = tmp_path / "data"
    for name, files in {
        "mnist": f"expected in {root}, {root / 'mnist'} or {root / 'MNIST' / 'raw'}: train-images-idx3-ubyte.gz",
        "cifar10": f"expected in {root / 'cifar-10-batches-py'}: data_batch_1, data_batch_2",
        "svhn": f"expected in {root}: train_32x32.mat, test_32x32.mat",
        "stl10": f"expected in {root / 'stl10_binary'}: train_X.bin",
    }.items():
        text = refusal(dataset(name, root=str(root)))
        assert f"data set `{name}` is not in {root}" in text and files in text and "downloading failed: " in text
        assert "set `download: true`" in refusal(dataset(name, root=str(root), download=False))
        assert not root.exists()


def test_cifar_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files in the published format, under their own MD5 sums."""
    from torchvision.datasets import CIFAR10, CIFAR100

    for library, key, names in ((CIFAR10, "labels", "label_names"), (CIFAR100, "fine_labels", "fine_label_names")):
        folder = tmp_path / library.base_folder
        folder.mkdir()

        def write(file: str, content: object, folder: Path = folder) -> str:
            data = pickle.dumps(content)
            (folder / file).write_bytes(data)
            return hashlib.md5(data).hexdigest()

        stored = {}
        for attribute in ("train_list", "test_list"):
            entries = []
            for file, _ in getattr(library, attribute):
                stored[file] = {"data": random_images(20, 3072), key: [i % 4 for i in range(20)]}
                entries.append([file, write(file, stored[file])])
            monkeypatch.setattr(library, attribute, entries)
        meta = {**library.meta, "md5": write(library.meta["filename"], {names: ["a", "b", "c", "d"]})}
        monkeypatch.setattr(library, "meta", meta)
        entry = dataset(library.__name__.lower(), root=str(tmp_path), download=False, validation=0)
        splits = entry.load()
        assert isinstance(splits.train, ArraySource) and splits.test is not None
        first = stored[library.train_list[0][0]]["data"]
        assert np.array_equal(splits.train.images[:20].reshape(20, 3072), first)
        assert splits.classes == ["a", "b", "c", "d"] and len(splits.test) == 20
        (folder / library.train_list[0][0]).write_bytes(b"damaged")
        assert "some are not as published (MD5)" in refusal(entry)


def test_svhn_and_stl10_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat
    from torchvision.datasets import STL10, SVHN

    labels = np.arange(20) % 10
    images = random_images(20, 3, 32, 32)
    entries = {}
    for split in ("train", "test"):
        file = tmp_path / f"{split}_32x32.mat"
        savemat(file, {"X": images.transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels)[:, None]})
        entries[split] = ["", file.name, hashlib.md5(file.read_bytes()).hexdigest()]
    monkeypatch.setattr(SVHN, "split_list", {**SVHN.split_list, **entries})
    splits = dataset("svhn", root=str(tmp_path), download=False, validation=0).load()
    assert isinstance(splits.train, ArraySource)
    assert np.array_equal(splits.train.images, images) and np.array_equal(splits.train.targets, labels)

    folder = tmp_path / STL10.base_folder
    folder.mkdir()
    pictures = random_images(10, 3, 96, 96)
    content = {"X": pictures.transpose(0, 1, 3, 2).tobytes(), "y": bytes(range(1, 11))}
    for attribute in ("train_list", "test_list"):
        entries_ = []
        for file_name, _ in getattr(STL10, attribute):
            data = content[file_name[-5]]
            (folder / file_name).write_bytes(data)
            entries_.append([file_name, hashlib.md5(data).hexdigest()])
        monkeypatch.setattr(STL10, attribute, entries_)
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    splits = dataset("stl10", root=str(tmp_path), download=False, validation=0).load()
    assert isinstance(splits.train, ArraySource)
    assert np.array_equal(splits.train.images, pictures) and splits.train.targets.tolist() == list(range(10))


@pytest.mark.parametrize(("name", "mean"), [("fashion-mnist", 0.2860), ("mnist", 0.1307)])
def test_published_statistics_of_the_real_files(name: str, mean: float) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"no {name} in ../shared/data")
    splits = dataset(name.replace("-", "_"), root=str(SHARED), validation=0, download=False).load()
    assert (len(splits.train), len(splits.test or [])) == (60_000, 10_000)
    assert Scaling.fit("standardize", splits.train, Canvas(28, 28)).mean[0] / 255 == pytest.approx(mean, abs=5e-5)


# -- arrays


def arrays(path: Path, **options: object) -> Dataset:
    return dataset("arrays", path=str(path), **options)


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((60, 9, 7), "auto", (1, 9, 7)),
        ((60, 9, 7, 3), "auto", (3, 9, 7)),
        ((60, 3, 9, 7), "auto", (3, 9, 7)),
        ((60, 9, 7, 5), "channels_last", (5, 9, 7)),
        ((60, 4, 3, 3), "channels_first", (4, 3, 3)),
    ],
)
def test_arrays(tmp_path: Path, shape: tuple[int, ...], layout: str, expected: tuple[int, ...]) -> None:
    images, labels = random_images(*shape), np.arange(60) % 3
    np.savez(tmp_path / "a.npz", images=images, labels=labels, classes=np.array(["x", "y", "z"]))
    splits = arrays(tmp_path / "a.npz", layout=layout).load()
    assert isinstance(splits.train, ArraySource) and splits.validation is not None and splits.test is not None
    assert splits.train.images.shape == (42, *expected) and splits.classes == ["x", "y", "z"]
    assert len(splits.validation) == 6 and len(splits.test) == 12


def test_arrays_with_their_own_held_out(tmp_path: Path) -> None:
    images, labels = random_images(20, 4, 4, 3), np.arange(20)[:, None] % 2
    np.savez(tmp_path / "a.npz", images=images, labels=labels, test_images=images[:5], test_labels=labels[:5])
    splits = arrays(tmp_path / "a.npz", layout="channels_last", validation=0).load()
    assert isinstance(splits.test, ArraySource)
    assert np.array_equal(splits.test.images, images[:5].transpose(0, 3, 1, 2)) and len(splits.train) == 20


def test_unfit_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    images, labels = random_images(20, 8, 8), np.arange(20) % 2

    def text(**content: object) -> str:
        np.savez(path, **content)  # type: ignore[arg-type]
        return refusal(arrays(path))

    assert f"there is no file {tmp_path / 'b.npz'}" in refusal(arrays(tmp_path / "b.npz"))
    assert "must be uint8, values 0..255, not float64" in text(images=images / 255, labels=labels)
    assert "must be integers 0, 1, ..., not float64" in text(images=images, labels=labels * 1.0)
    assert "one label an image, and have shape (19,)" in text(images=images, labels=labels[:19])
    assert "`labels` must be 0, 1, ..., and one is -1" in text(images=images, labels=labels - 1)
    assert "go up to 1, with 1 names in `classes`" in text(images=images, labels=labels, classes=["only"])
    assert "go up to 900, with 20 examples" in text(images=images, labels=labels * 900)
    assert "without gaps, and none is 1" in text(images=images, labels=labels * 2)
    assert "needs two classes or more" in text(images=images, labels=labels * 0)
    assert "is `image` meant?" in text(image=images, labels=labels)
    assert "does not show where its channels are" in text(images=images[:, :3, :3, None].repeat(3, 3), labels=labels)
    assert "not of shape (20, 64)" in text(images=images.reshape(20, 64), labels=labels)
    assert "Python objects, which are never loaded" in text(images=images, labels=np.array([{}] * 20))
    path.write_bytes(b"PK\x03\x04 nonsense")
    assert "is not an .npz file" in refusal(arrays(path))
    np.save(tmp_path / "one.npy", images)
    assert "it holds one array" in refusal(arrays(tmp_path / "one.npy"))


# -- folders


def fill(root: Path, *names: str, count: int = 10) -> None:
    for name in names:
        for number in range(count):
            save(root / name / f"{number}.png", random_images(6, 8, 3))


def test_one_set_of_class_folders_gets_a_fixed_held_out(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "dog", "train")
    save(tmp_path / "cat" / "deeper" / "x.png", random_images(4, 4))
    save(tmp_path / "cat" / ".hidden.png", random_images(4, 4))
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    splits = dataset("image_folder", root=str(tmp_path), validation=0).load()
    assert splits.classes == ["cat", "dog", "train"] and splits.validation is None and splits.test is not None
    assert (len(splits.train), len(splits.test)) == (25, 6)
    assert b"cat/deeper/x.png" in keys(splits.train) | keys(splits.test)
    other = dataset("image_folder", root=str(tmp_path), test=0, validation=0.1).load()
    assert other.test is None and len(other.validation or []) == 3


def test_train_val_test_folders(tmp_path: Path) -> None:
    fill(tmp_path / "train", "cat", "dog")
    entry = dataset("image_folder", root=str(tmp_path))
    splits = entry.load()
    assert splits.test is None and len(splits.validation or []) == 2
    assert not dataset("image_folder", root=str(tmp_path), validation=0).has_validation
    fill(tmp_path / "validation", "cat", "dog", count=3)
    fill(tmp_path / "test", "cat", "dog", count=2)
    splits = entry.load()
    assert [len(part or []) for part in (splits.train, splits.validation, splits.test)] == [20, 6, 4]
    assert dataset("image_folder", root=str(tmp_path), validation=0).has_validation
    before = splits.fingerprint
    save(tmp_path / "test" / "cat" / "0.png", random_images(9, 9))
    assert entry.load().fingerprint != before


def test_unfit_folders_are_refused(tmp_path: Path) -> None:
    entry = dataset("image_folder", root=str(tmp_path / "photos"))
    assert f"there is no folder {tmp_path / 'photos'}" in refusal(entry) and "train/<class>/" in refusal(entry)
    fill(tmp_path / "photos", ".")
    assert "there are no images in class folders" in refusal(entry)
    fill(tmp_path / "photos" / "train", "cat", "dog")
    (tmp_path / "photos" / "train" / "emu").mkdir()
    assert "class `emu` is empty" in refusal(entry)
    (tmp_path / "photos" / "train" / "emu").rmdir()
    fill(tmp_path / "photos" / "test", "cat", "dogs")
    assert "only in test: dogs" in refusal(entry) and "only in train: dog" in refusal(entry)
    (tmp_path / "photos" / "test").rename(tmp_path / "photos" / "val")
    fill(tmp_path / "photos" / "validation", "cat")
    assert "keep one" in refusal(entry)


def test_a_file_of_no_bytes_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "empty.jpg").touch()
    assert f"{tmp_path / 'cat' / 'empty.jpg'} is empty" in refusal(dataset("image_folder", root=str(tmp_path)))


def test_real_photos() -> None:
    if not (SHARED / "folder" / "caltech12").is_dir():
        pytest.skip("no caltech12 in ../shared/data")
    splits = dataset("image_folder", root=str(SHARED / "folder" / "caltech12")).load()
    assert isinstance(splits, Splits) and splits.test is None
    assert (len(splits.train), len(splits.validation or []), len(splits.classes)) == (576, 144, 12)


# -- decoding


def test_every_kind_of_file_becomes_upright_bytes(tmp_path: Path) -> None:
    rgb = random_images(6, 9, 3)
    image = Image.fromarray(rgb)
    alpha = Image.fromarray(np.dstack([rgb, random_images(6, 9)]))
    grey = np.asarray(image.convert("L"))
    image.save(tmp_path / "rgb.png")
    image.save(tmp_path / "rgb.bmp")
    image.save(tmp_path / "rgb.webp", lossless=True)
    alpha.save(tmp_path / "rgba.png")
    for file in ("rgb.png", "rgb.bmp", "rgb.webp", "rgba.png"):
        assert np.array_equal(decode(tmp_path / file, 3).permute(1, 2, 0), rgb), file
        assert np.array_equal(decode(tmp_path / file, 1)[0], grey), file
    save(tmp_path / "grey.png", grey)
    assert np.array_equal(decode(tmp_path / "grey.png", 3), np.stack([grey] * 3))
    save(tmp_path / "deep.png", grey.astype(np.uint16) * 257)
    assert np.array_equal(decode(tmp_path / "deep.png", 1)[0], grey)
    palette = image.quantize(16)
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "clear.png", transparency=bytes([0, 128] + [255] * 14))
    for file in ("palette.png", "clear.png"):
        assert np.array_equal(decode(tmp_path / file, 3).permute(1, 2, 0), np.asarray(palette.convert("RGB"))), file
    image.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100, subsampling=0)
    smooth = np.add.outer(np.arange(16), np.arange(24)).astype(np.uint8)[..., None].repeat(3, 2) * 6
    Image.fromarray(smooth).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(decode(tmp_path / "cmyk.jpg", 3).permute(1, 2, 0).numpy().astype(int) - smooth).max() <= 3
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(decode(tmp_path / "turned.png", 3).permute(1, 2, 0), np.rot90(rgb, -1))


@pytest.fixture(scope="module")
def large_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo of 1200x900 pixels as JPEG and PNG, in the folders `upright` and `turned`."""
    folder = tmp_path_factory.mktemp("large")
    rough = Image.fromarray(random_images(45, 60, 3)).resize((1200, 900), Image.Resampling.BICUBIC)
    for way, number in (("upright", 1), ("turned", 6)):
        (folder / way).mkdir()
        exif = Image.Exif()
        exif[0x0112] = number
        for name in ("large.jpg", "large.png"):
            rough.save(folder / way / name, exif=exif)
    return folder


@pytest.mark.parametrize(
    ("canvas", "decoded"),
    [
        (Canvas(64, 64, "fit"), (48, 64)),  # 3 times that: a quarter is enough, an eighth would not be
        (Canvas(64, 64, "crop", crop=0.875), (73, 97)),
        (Canvas(128, 128, "fit", interpolation="bicubic"), (96, 128)),
        (Canvas(300, 300, "fit"), (900, 1200)),  # 3 times 225x300 is more than the half
        (Canvas(64, 64, "fit", interpolation="nearest"), (900, 1200)),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(
    large_files: Path, canvas: Canvas, decoded: tuple[int, int], turned: bool
) -> None:
    """Where it is, it comes in the size that it has on the canvas."""
    folder = large_files / ("turned" if turned else "upright")
    large = decode(folder / "large.jpg", 3, canvas)
    assert tuple(large.shape[1:]) == (decoded[::-1] if turned else decoded)
    assert decode(folder / "large.png", 3, canvas).shape[1:].numel() == 900 * 1200  # other files offer no such thing
    whole, size = place(decode(folder / "large.jpg", 3), canvas)
    fraction, its_size = place(large, canvas)
    assert size == its_size and int((whole.int() - fraction.int()).abs().max()) <= 4
    (read,), _ = load_files(str(folder), ["large.jpg"], 3, canvas)  # as training, evaluation and packs read it
    assert torch.equal(read, fraction)


@pytest.mark.parametrize("rule", ["crop", "fit"])
@pytest.mark.parametrize("size", [(500, 333), (1365, 2047), (683, 455), (239, 1001)])
def test_a_jpeg_decoded_at_a_fraction_lies_where_the_whole_one_lies(
    tmp_path: Path, size: tuple[int, int], rule: Literal["crop", "fit"]
) -> None:
    """Whatever its sides leave when they are divided, and whichever way it is turned upright."""
    canvas = Canvas(32, 30, rule, crop=0.9) if rule == "crop" else Canvas(45, 40, rule)
    rough = Image.fromarray(random_images(18, 24, 3)).resize(size, Image.Resampling.BICUBIC)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        rough.save(tmp_path / "odd.jpg", exif=exif, quality=95, subsampling=0)
        whole, extent = place(decode(tmp_path / "odd.jpg", 3), canvas)
        for channels, reference in ((3, whole), (1, place(decode(tmp_path / "odd.jpg", 1), canvas)[0])):
            small = decode(tmp_path / "odd.jpg", channels, canvas)
            assert 9 * small.numel() <= channels * size[0] * size[1], "decoded whole"
            placed, its_extent = place(small, canvas)
            assert its_extent == extent
            difference = (placed.int() - reference.int()).abs().float()
            assert difference.mean() < 1 and difference.max() <= 8, (orientation, difference.mean(), difference.max())


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    cut = save(tmp_path / "cut.jpg", random_images(64, 64, 3))
    cut.write_bytes(cut.read_bytes()[:500])
    (tmp_path / "text.png").write_text("not an image")
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    for file in ("cut.jpg", "text.png", "float.tif", "absent.png"):
        with pytest.raises(ConfigError, match=file):
            decode(tmp_path / file, 3)


# -- the canvas


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_crop_is_torchvisions_evaluation_rule(interpolation: str) -> None:
    from torchvision.transforms import InterpolationMode, v2

    for height, width in ((40, 61), (53, 37), (20, 20), (24, 24)):
        image = torch.from_numpy(random_images(3, height, width))
        canvas = Canvas(21, 21, "crop", interpolation, crop=0.875)  # type: ignore[arg-type]
        placed, extent = place(image, canvas)
        mode = InterpolationMode.NEAREST_EXACT if interpolation == "nearest" else InterpolationMode(interpolation)
        rule = v2.Compose([v2.Resize(24, interpolation=mode, antialias=True), v2.CenterCrop(21)])
        if interpolation == "lanczos":
            expected = v2.functional.pil_to_tensor(rule(v2.functional.to_pil_image(image)))
        else:
            expected = rule(image)
        assert extent == (21, 21)
        assert (placed.int() - expected.int()).abs().max() <= 1  # versions of torchvision round differently


def test_crop_covers_a_canvas_that_is_not_square() -> None:
    for height, width in ((30, 80), (80, 30), (10, 20), (7, 7)):
        assert place(torch.zeros(1, height, width, dtype=torch.uint8), Canvas(10, 20, "crop"))[0].shape == (1, 10, 20)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_shrunk_images_keep_the_channels_of_a_pixel_side_by_side(interpolation: Interpolation) -> None:
    decoded = torch.randint(0, 256, (30, 40, 3), dtype=torch.uint8).permute(2, 0, 1)  # as decoders give them
    shrunk, extent = place(decoded, Canvas(20, 20, "crop", interpolation))
    assert extent == (20, 20) and shrunk.stride(0) == 1  # else crops and scaling take twice the time
    assert torch.equal(shrunk, place(decoded.contiguous(), Canvas(20, 20, "crop", interpolation))[0])


def test_fit_keeps_the_whole_image_and_never_enlarges() -> None:
    image = torch.from_numpy(random_images(3, 20, 10))
    placed, extent = place(image, Canvas(32, 32, "fit"))
    assert extent == (20, 10) and torch.equal(placed[:, :20, :10], image)
    assert placed.shape == (3, 32, 32) and placed[:, 20:].sum() + placed[:, :, 10:].sum() == 0
    placed, extent = place(image, Canvas(8, 8, "fit"))
    assert extent == (8, 4) and placed[:, :, 4:].sum() == 0
    assert torch.equal(placed[:, :, :4], place(image, Canvas(8, 4, "crop"))[0])
    assert place(torch.ones(1, 400, 1, dtype=torch.uint8), Canvas(8, 8, "fit"))[1] == (8, 1)


def test_a_batch_is_placed_as_its_images_are() -> None:
    source = ArraySource(random_images(300, 3, 12, 15), np.zeros(300, dtype=np.int64))
    for rule in ("crop", "fit"):
        canvas = Canvas(9, 9, rule, "bicubic")  # type: ignore[arg-type]
        together, extent = place_all(source.images, canvas)
        for number in (0, 255, 256, 299):
            alone, its_extent = place(torch.from_numpy(source.images[number]), canvas)
            assert torch.equal(together[number], alone) and extent == its_extent


# -- scaling


def test_scaling_against_float64_and_torchvision() -> None:
    from torchvision.transforms import v2

    images = random_images(500, 3, 9, 7) // np.array([1, 2, 5], dtype=np.uint8)[:, None, None]
    source = ArraySource(images, np.zeros(500, dtype=np.int64))
    exact = images.astype(np.float64)
    scaling = Scaling.fit("standardize", source, Canvas(9, 7))
    np.testing.assert_allclose(scaling.mean, exact.mean((0, 2, 3)), rtol=1e-14)
    np.testing.assert_allclose(scaling.std, exact.std((0, 2, 3)), rtol=1e-13)
    pixels = torch.from_numpy(images[:64])
    scaled = scaling.apply(pixels)
    reference = v2.Normalize([m / 255 for m in scaling.mean], [s / 255 for s in scaling.std])(pixels.double() / 255)
    assert scaled.dtype == torch.float32 and (scaled - reference).abs().max() < 1e-6
    assert torch.equal(scaling.apply(pixels.float()), scaled)
    assert (scaling.on("cpu").invert(scaled) - pixels).abs().max() < 1e-3
    last = scaling.apply(pixels, channels_last=True)
    assert last.is_contiguous(memory_format=torch.channels_last) and torch.equal(last, scaled)

    ranged = Scaling.fit("min_max", source, Canvas(9, 7)).apply(torch.from_numpy(images))
    assert ranged.amin((0, 2, 3)).tolist() == [0] * 3
    assert ranged.amax((0, 2, 3)).tolist() == pytest.approx([1] * 3, abs=1e-6)
    plain = Scaling.fit("none", source, Canvas(9, 7))
    assert torch.allclose(plain.apply(pixels), pixels / 255, atol=1e-7, rtol=0)
    assert Scaling.from_dict(scaling.to_dict()) == scaling


@pytest.mark.parametrize("kind", ["pca_whiten", "zca_whiten"])
def test_whitening(kind: str) -> None:
    """Uncorrelated values of variance 1; against scikit-learn, and the matrix of zca is symmetric and the closest."""
    from sklearn.decomposition import PCA
    from torchvision.transforms import v2

    random = np.random.default_rng(0)
    smooth = random.normal(size=(600, 1, 3, 12)) @ random.normal(size=(12, 4)) * 12 + 128
    images = np.concatenate([smooth, random.normal(128, 30, (600, 1, 3, 4))], 1).clip(0, 255).astype(np.uint8)
    source = ArraySource(images, np.zeros(600, dtype=np.int64))
    scaling = Scaling.fit(kind, source, Canvas(3, 4), 1e-12)  # type: ignore[arg-type]
    pixels = torch.from_numpy(images)
    white = scaling.apply(pixels).flatten(1).double()
    assert white.mean(0).abs().max() < 1e-4
    torch.testing.assert_close(white.mT @ white / 600, torch.eye(24).double(), rtol=0, atol=1e-3)
    reference = PCA(whiten=True).fit(images.reshape(600, -1) / 255)
    theirs = torch.from_numpy(reference.transform(images.reshape(600, -1) / 255)) * np.sqrt(600 / 599)
    applied = scaling.on("cpu")
    if kind == "pca_whiten":
        torch.testing.assert_close(white.abs(), theirs.abs(), rtol=0, atol=2e-3)  # an axis has no sign
    else:
        torch.testing.assert_close(applied.matrix, applied.matrix.mT)
        theirs = v2.LinearTransformation(applied.matrix, applied.mean)(pixels.float() / 255)
        torch.testing.assert_close(white.float(), theirs.flatten(1), rtol=0, atol=1e-3)
        other = Scaling.fit("pca_whiten", source, Canvas(3, 4), 1e-12).apply(pixels).flatten(1)
        centred = pixels.flatten(1) / 255 - applied.mean
        assert (white - centred).square().sum() < (other - centred).square().sum()
    again = Scaling.from_dict(scaling.to_dict())
    assert torch.equal(again.apply(pixels).flatten(1).double(), white)
    assert torch.equal(scaling.apply(pixels.float()), scaling.apply(pixels))
    torch.testing.assert_close(applied.invert(scaling.apply(pixels)), pixels.float(), rtol=0, atol=0.05)
    last = scaling.apply(pixels.to(memory_format=torch.channels_last), channels_last=True)
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, scaling.apply(pixels))
    assert Scaling.fit(kind, source, Canvas(3, 4), 1.0).apply(pixels).var() < 0.5  # type: ignore[arg-type]


def test_whitening_of_large_images_is_refused() -> None:
    source = ArraySource(np.zeros((3, 3, 40, 40), np.uint8), np.zeros(3, dtype=np.int64))
    with pytest.raises(ConfigError, match="`zca_whiten` of images of 4,800 values"):
        Scaling.fit("zca_whiten", source, Canvas(40, 40))


def test_scaling_does_not_write_into_its_input() -> None:
    images = torch.full((2, 1, 3, 3), 7.0)
    Scaling([5.0], [2.0]).apply(images)
    assert images.unique().tolist() == [7.0]


@pytest.mark.parametrize("kind", ["standardize", "min_max"])
def test_a_constant_channel_becomes_zero(kind: str) -> None:
    source = ArraySource(np.full((4, 1, 3, 3), 200, np.uint8), np.zeros(4, dtype=np.int64))
    scaling = Scaling.fit(kind, source, Canvas(3, 3))  # type: ignore[arg-type]
    assert scaling == Scaling([200.0], [1.0]) and not scaling.apply(torch.from_numpy(source.images)).any()


def test_scaling_of_files_leaves_out_what_lies_beside_them(tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / f"{number}.png", np.full((4 + number, 3, 3), 10 * number, np.uint8))
    source = FileSource(ImageFiles(str(tmp_path), [f"{n}.png" for n in range(6)]), np.zeros(6, dtype=np.int64))
    scaling = Scaling.fit("standardize", source, Canvas(16, 16, "fit"))
    values = np.concatenate([np.full(3 * (4 + n), 10.0 * n) for n in range(6)])
    assert scaling.mean == pytest.approx([values.mean()] * 3) and scaling.std == pytest.approx([values.std()] * 3)


def test_pixel_covariance() -> None:
    images = random_images(50, 3, 5, 5)
    images[:, 1] = images[:, 0] // 2
    source = ArraySource(images, np.zeros(50, dtype=np.int64))
    expected = np.cov(images.transpose(1, 0, 2, 3).reshape(3, -1) / 255, bias=True)
    np.testing.assert_allclose(pixel_covariance(source, Canvas(5, 5)), expected, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"name": "digits", "size": [1]}, "size"),
        ({"name": "synthetic", "shape": [1, 2]}, "shape"),
        ({"name": "synthetic", "examples": 30}, "examples"),
        ({"name": "digits", "validation": 1.5}, "validation"),
        ({"name": "digits", "validation": -1}, "validation"),
        ({"name": "digits", "root": "x"}, "root"),
        ({"name": "image_folder"}, "root"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        Dataset.parse(options)


def test_every_data_set_documents_its_options() -> None:
    for name in Dataset.all_names():
        entry = Dataset.lookup(name)
        assert entry is not None and entry.summary()
        assert set(field_docs(entry)) | {"name"} >= set(entry.model_fields)
