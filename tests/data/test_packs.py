"""The cache of decoded images: the same batches, made once, made anew when a file changes, never trusted blindly."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training import write_experiment, write_folder
from typer.testing import CliRunner

from dltrain.cli import app
from dltrain.config import ConfigError
from dltrain.data.loading import packs
from dltrain.data.loading.choosing import Loader, make_loader
from dltrain.data.loading.packs import make_pack, pack_path, packed
from dltrain.data.sources import FileSource
from dltrain.data.types import Canvas, ImageFiles

CPU = torch.device("cpu")
CANVASES = {
    "crop": Canvas(9, 8, "crop", crop=0.875),
    "fit": Canvas(14, 14, "fit"),
    "exact": Canvas(12, 10, "exact"),
}


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    """22 PNG files of mixed sizes, with a cache."""
    root, random = tmp_path / "photos", np.random.Generator(np.random.PCG64(1))
    root.mkdir()
    paths = [f"{number:02d}.png" for number in range(22)]
    for number, path in enumerate(paths):
        shape = (12 + number % 5, 10 + number % 7, 3)
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(root / path)
    return ImageFiles(str(root), paths, cache=tmp_path / "cache")


def labelled(files: ImageFiles) -> FileSource:
    return FileSource(files, np.arange(22, dtype=np.int64) % 3)


def again(files: ImageFiles) -> ImageFiles:
    """The files as another process has them."""
    return files.having(files.paths)


def everything(loader: Loader) -> Iterator[torch.Tensor]:
    for batch in [*islice(loader.batches(2), 5), *(batch for batch, _ in loader.evaluation_batches())]:
        yield from (batch.inputs, batch.targets, batch.indices)
        if batch.extents is not None:
            yield batch.extents
    loader.close()


@pytest.mark.parametrize("canvas", CANVASES.values(), ids=list(CANVASES))
@pytest.mark.parametrize("kind", ["resident", "streaming"])
def test_batches_are_those_of_the_files(kind: str, canvas: Canvas, files: ImageFiles) -> None:
    expected = make_loader("streaming", labelled(replace(files, cache=None)), canvas, batch_size=5, seed=3, device=CPU)
    found = make_loader(kind, labelled(files), canvas, batch_size=5, seed=3, device=CPU)  # type: ignore[arg-type]
    for one, other in zip(everything(expected), everything(found), strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


def test_it_is_made_once_and_read_by_whoever_comes_later(files: ImageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    first = packed(files, CANVASES["fit"])
    monkeypatch.setattr(packs, "load_files", None)
    second = packed(again(files), CANVASES["fit"])
    assert second.path == first.path and torch.equal(second.images, first.images)
    assert [path.suffix for path in files.cache.glob("*.pack")] == [".pack"]  # type: ignore[union-attr]
    assert list(make_pack(again(files), CANVASES["fit"])) == []


def rewrite(files: ImageFiles) -> None:
    Image.new("RGB", (11, 13), (9, 200, 30)).save(Path(files.root, files.paths[4]))


def remove(files: ImageFiles) -> None:
    Path(files.root, files.paths.pop()).unlink()


def cut(files: ImageFiles) -> None:
    path = pack_path(files, CANVASES["fit"])
    os.truncate(path, path.stat().st_size - 1)


def overwrite(files: ImageFiles) -> None:
    with pack_path(files, CANVASES["fit"]).open("r+b") as file:
        file.write(b"something else")


def exchange(files: ImageFiles) -> None:
    """Other pixels, in a file of the same size and the same time of change."""
    path = Path(files.root, files.paths[4])
    with Image.open(path) as image:
        image.load()
    image.save(path, "BMP")
    packed(again(files), CANVASES["fit"])
    state = path.stat()
    Image.new("RGB", image.size, (9, 200, 30)).save(path, "BMP")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_time_that_changes_alone_makes_no_difference(files: ImageFiles) -> None:
    packed(files, CANVASES["fit"])
    os.utime(Path(files.root, files.paths[4]), (1, 1))
    assert list(make_pack(again(files), CANVASES["fit"])) == []


@pytest.mark.parametrize("change", [rewrite, exchange, remove, cut, overwrite])
def test_it_is_made_anew_when_it_no_longer_fits(change, files: ImageFiles) -> None:  # type: ignore[no-untyped-def]
    packed(files, CANVASES["fit"])
    change(files)
    later = again(files)
    assert list(make_pack(later, CANVASES["fit"])) == [len(files)]
    expected = packs.load_files(files.root, files.paths, 3, CANVASES["fit"])
    found = packed(later, CANVASES["fit"])
    assert torch.equal(found.images, expected[0]) and torch.equal(found.extents, expected[1])


def make(root: str, paths: list[str], cache: Path, answers) -> None:  # type: ignore[no-untyped-def]
    files = ImageFiles(root, paths, cache=cache)
    made = list(make_pack(files, CANVASES["fit"]))
    answers.put((len(made), int(files.packs[CANVASES["fit"]].images.sum())))


@pytest.mark.parametrize("extent", [0, -3, 15, 2**40])
def test_it_is_made_anew_when_its_images_have_sizes_that_cannot_be(files: ImageFiles, extent: int) -> None:
    canvas = CANVASES["fit"]
    sound = packed(files, canvas).extents.clone()
    path = pack_path(files, canvas)
    content = bytearray(path.read_bytes())
    place = content.index(sound[0].numpy().tobytes())
    content[place : place + 8] = extent.to_bytes(8, "little", signed=True)
    path.write_bytes(content)
    assert torch.equal(packed(again(files), canvas).extents, sound)


def test_several_processes_make_it_once(files: ImageFiles) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    arguments = (files.root, files.paths, files.cache, answers)
    processes = [context.Process(target=make, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in processes]
    assert sorted(count for count, _ in found) == [0, 0, 1] and len({total for _, total in found}) == 1


def test_a_killed_writer_leaves_nothing_that_is_read(files: ImageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "CHUNK", 5)
    writing = make_pack(files, CANVASES["fit"])
    assert [next(writing), next(writing)] == [5, 10]
    assert not pack_path(files, CANVASES["fit"]).exists()
    writing.close()
    assert {path.suffix for path in files.cache.iterdir()} <= {".lock", ".contents"}  # type: ignore[union-attr]
    assert list(make_pack(again(files), CANVASES["fit"])) == [5, 10, 15, 20, 22]


def test_damaged_files_are_named_and_nothing_is_kept(files: ImageFiles) -> None:
    for path in (files.paths[3], files.paths[8]):
        Path(files.root, path).write_bytes(b"no image")
    with pytest.raises(ConfigError) as raised:
        packed(files, CANVASES["fit"])
    assert len(raised.value.diagnostics) == 2
    assert not pack_path(files, CANVASES["fit"]).exists()


def test_a_cache_that_cannot_be_written_is_an_error_that_names_it(
    files: ImageFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage("/")._replace(free=100)
    with monkeypatch.context() as patch, pytest.raises(ConfigError, match="100 B are free") as raised:
        patch.setattr(packs.shutil, "disk_usage", lambda _: full)
        packed(files, CANVASES["fit"])
    assert raised.value.diagnostics[0].notes == ("it takes 13.5 kB; `cache: FOLDER` puts it elsewhere",)

    def fails(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(packs.FileLock, "__enter__", fails)
    with pytest.raises(ConfigError, match="cannot be written: read-only file system"):
        packed(files, CANVASES["fit"])


CACHED = {
    "data": {"name": "image_folder", "size": 12, "cache": "cache", "loader": "streaming"},
    "augmentation": [{"name": "random_resized_crop"}, "horizontal_flip"],
    "model": {"name": "convnet", "widths": [6, 8]}, "training": {"epochs": 2, "batch_size": 8},
}  # fmt: skip


def test_pack_and_fit_and_eval_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "photos")
    experiment = write_experiment(tmp_path, {**CACHED, "data.root": "photos", "training.accumulate": 1})

    def command(*words: object) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    said = command("pack", experiment)
    assert "train: 28 images, whole, shrunk into 24x24, bilinear, " in said and " made in " in said
    assert len(list(Path("cache").glob("*.pack"))) == 3 and "there already" not in said
    times = {path: path.stat().st_mtime_ns for path in Path("cache").glob("*.pack")}
    assert command("pack", experiment).count("there already") == 3
    said = command("fit", experiment, "--runs", "one")
    assert "workers" in said and "decoded once, into the cache" in said
    command("fit", experiment, "--runs", "two", "data.cache=false", "data.workers=0")
    one, two = (
        torch.load(f"{runs}/tiny/001/checkpoints/last.pt", weights_only=True)["model"] for runs in ("one", "two")
    )
    assert all(torch.equal(two[name], tensor) for name, tensor in one.items())
    command("eval", "one/tiny/001")
    assert times == {path: path.stat().st_mtime_ns for path in Path("cache").glob("*.pack")}


def test_data_without_files_is_not_packed(tmp_path: Path) -> None:
    path = tmp_path / "digits.yaml"
    path.write_text("data: digits\nmodel: convnet\n")
    result = CliRunner().invoke(app, ["pack", str(path)])
    assert result.exit_code == 2 and "data set `digits` has no files to decode" in result.output


def test_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dltrain.data.loading.resources import cache_folder

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert [cache_folder(cache) for cache in (False, True, "here")] == [None, tmp_path / "dltrain", Path("here")]
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder(True) == Path.home() / ".cache" / "dltrain"
