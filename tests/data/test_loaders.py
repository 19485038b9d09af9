"""Both loaders: the same batches from every start, whole epochs, no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from forking import Zygote
from PIL import Image

from dltrain.config import ConfigError
from dltrain.data.loading.choosing import Loader, ResidentLoader, choose_loader, choose_workers, make_loader
from dltrain.data.loading.order import Order, stratified
from dltrain.data.loading.resources import free_memory
from dltrain.data.loading.streaming import LostWorkerError, StreamingLoader
from dltrain.data.sources import ArraySource, FileSource
from dltrain.data.types import Batch, Canvas, ImageFiles, Source

CPU = torch.device("cpu")
FIELDS = ("inputs", "targets", "indices", "epochs", "extents")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> FileSource:
    root = tmp_path_factory.mktemp("photos")
    random = np.random.Generator(np.random.PCG64(1))
    paths = [f"{number:02d}.png" for number in range(22)]
    for number, path in enumerate(paths):
        shape = (12 + number % 5, 10 + number % 7, 3)
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(root / path)
    return FileSource(ImageFiles(str(root), paths), np.arange(22, dtype=np.int64) % 3)


@pytest.fixture(scope="module")
def array() -> ArraySource:
    random = np.random.Generator(np.random.PCG64(2))
    return ArraySource(random.integers(0, 256, (22, 2, 8, 9), dtype=np.uint8), np.arange(22, dtype=np.int64) % 3)


def assert_same(one: Batch, other: Batch) -> None:
    for field in FIELDS:
        a, b = getattr(one, field), getattr(other, field)
        assert (a is None) == (b is None) and (a is None or (a.dtype == b.dtype and torch.equal(a, b))), field


# -- order


@pytest.mark.parametrize(("examples", "batch_size"), [(20, 5), (22, 5), (7, 7), (7, 4), (5, 1)])
def test_every_epoch_sees_every_example_and_every_batch_has_one_shape(examples: int, batch_size: int) -> None:
    order = Order(examples, batch_size, 0)
    assert order.steps_per_epoch == -(-examples // batch_size)
    for epoch in range(3):
        indices, epochs = order.epoch(epoch)
        assert len(indices) == order.steps_per_epoch * batch_size
        own, borrowed = indices[epochs == epoch], indices[epochs == epoch + 1]
        assert sorted(own.tolist()) == list(range(examples))
        assert torch.equal(borrowed, order.permutation(epoch + 1)[: len(borrowed)])
        assert torch.equal(epochs, epochs.sort().values)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    one, other = Order(50, 8, 1), Order(50, 8, 1)
    other.epoch(7)
    assert torch.equal(one.permutation(2), other.permutation(2))
    assert not torch.equal(one.permutation(2), one.permutation(3))
    assert not torch.equal(one.permutation(2), Order(50, 8, 2).permutation(2))
    state = torch.get_rng_state()
    one.permutation(9)
    assert torch.equal(state, torch.get_rng_state())
    stream = list(islice(one.batches(0), 20))
    for start in (3, 6, 7, 15):
        assert all(torch.equal(a, b) for a, b in zip(islice(other.batches(start), 5), stream[start:]))


def test_a_batch_larger_than_the_split_is_refused(array: ArraySource) -> None:
    loader = ResidentLoader(array, Canvas(8, 9), batch_size=23, seed=0, device=CPU)
    with pytest.raises(ConfigError, match="a batch of 23 is larger than the training split of 22 examples"):
        next(loader.batches())
    batch, valid = next(loader.evaluation_batches())
    assert valid == 22 and len(batch.inputs) == 23


# -- batches


def test_resident_batches_are_the_examples_they_say(array: ArraySource) -> None:
    loader = ResidentLoader(array, Canvas(8, 9), batch_size=5, seed=3, device=CPU)
    assert loader.inputs.data_ptr() == torch.from_numpy(array.images).data_ptr(), "arrays are not copied"
    for step, batch in enumerate(islice(loader.batches(), 12)):
        assert np.array_equal(batch.inputs, array.images[batch.indices])
        assert np.array_equal(batch.targets, array.targets[batch.indices])
        assert batch.extents is None and batch.epochs[0] == step // 5
        assert_same(batch, loader.batch(step))


CANVASES = [Canvas(8, 9), Canvas(6, 6, "crop", "bicubic"), Canvas(11, 11, "fit")]


@pytest.mark.parametrize("canvas", CANVASES, ids=str)
def test_streamed_arrays_equal_resident_ones(array: ArraySource, canvas: Canvas) -> None:
    resident, streaming = both(array, canvas, workers=0)
    for start in (0, 3, 4, 11):
        for one, other in zip(islice(resident.batches(start), 6), streaming.batches(start), strict=False):
            assert_same(one, other)
    assert_same_evaluation(resident, streaming)


@pytest.mark.parametrize("canvas", CANVASES[1:], ids=str)
def test_streamed_files_equal_resident_ones(files: FileSource, canvas: Canvas) -> None:
    resident, streaming = both(files, canvas, workers=0)
    for start in (0, 4):
        for one, other in zip(islice(resident.batches(start), 6), streaming.batches(start), strict=False):
            assert_same(one, other)
    assert_same_evaluation(resident, streaming)


def both(source: Source, canvas: Canvas, workers: int) -> tuple[ResidentLoader, StreamingLoader]:
    return (
        ResidentLoader(source, canvas, batch_size=5, seed=3, device=CPU),
        StreamingLoader(source, canvas, batch_size=5, seed=3, device=CPU, workers=workers),
    )


def assert_same_evaluation(resident: Loader, streaming: Loader) -> None:
    pairs = list(zip(resident.evaluation_batches(), streaming.evaluation_batches(), strict=True))
    for (one, valid), (other, same_valid) in pairs:
        assert valid == same_valid
        assert_same(one, other)
    counted = torch.cat([batch.indices[:valid] for (batch, valid), _ in pairs])
    assert counted.tolist() == list(range(22)) and {len(batch.inputs) for (batch, _), _ in pairs} == {5}


@pytest.mark.parametrize("counts", [[900, 90, 10], [5] * 40, [1, 0, 700]], ids=str)
def test_every_beginning_of_a_stratified_order_has_the_classes_in_proportion(counts: list[int]) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    order = stratified(labels)
    assert order.sort().values.equal(torch.arange(len(labels)))
    assert order.equal(stratified(labels)) and not order.equal(order.sort().values)
    seen = torch.nn.functional.one_hot(labels[order], len(counts)).cumsum(0)
    expected = torch.arange(1, len(labels) + 1)[:, None] * torch.tensor(counts) / len(labels)
    assert (seen - expected).abs().max() < 2


def test_limited_evaluations_see_the_same_sample(files: FileSource) -> None:
    resident, streaming = both(files, Canvas(7, 7, "fit"), workers=0)
    found = [batch.indices.tolist() for batch, valid in resident.evaluation_batches(2) if valid == 5]
    assert found == [batch.indices.tolist() for batch, _ in streaming.evaluation_batches(2)]
    assert len(found) == 2 and len({*found[0], *found[1]}) == 10
    assert [valid for _, valid in resident.evaluation_batches(9)] == [5, 5, 5, 5, 2]


def test_worker_processes(files: FileSource) -> None:
    """One pool serves several starts, evaluation beside training, and an early stop; then nothing is left."""
    canvas = Canvas(7, 7, "fit")
    resident, streaming = both(files, canvas, workers=2)
    state = torch.get_rng_state()
    try:
        stream = streaming.batches(3)
        for step in range(3, 7):
            assert_same(resident.batch(step), next(stream))
        first = {process.pid for process in multiprocessing.active_children()}
        assert len(first) == 2
        stream.close()  # as after looking at sample images
        stream = streaming.batches(0)
        for step in range(2):
            assert_same(resident.batch(step), next(stream))
        assert {process.pid for process in multiprocessing.active_children()} == first, "the workers are kept"
    finally:
        streaming.close()  # with a stream half read
    assert torch.equal(state, torch.get_rng_state())
    assert_gone()
    with pytest.raises(StopIteration):
        next(stream)


def assert_gone() -> None:
    end = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < end:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_stops_streaming_by_name(tmp_path: Path, workers: int) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("no image")
    source = FileSource(ImageFiles(str(tmp_path), ["good.png", "bad.png"]), np.arange(2))
    loader = make_loader("streaming", source, Canvas(4, 4, "crop"), batch_size=2, seed=0, device=CPU, workers=workers)
    try:
        with pytest.raises(ConfigError, match=r"bad\.png is not an image"):
            next(loader.batches())
    finally:
        loader.close()
    assert_gone()


SCRIPT = """
from dltrain import Experiment, build
trainer = build(Experiment.parse(
    "data: {name: image_folder, root: ROOT, size: 8, validation: 0, test: 0.0, loader: streaming, workers: 2}\\n"
    "model: softmax_regression\\ntraining: {steps: 3, batch_size: 4}\\n"
), "cpu")
for epoch in trainer.run():
    pass
trainer.close()
print("trained")
"""


def test_a_script_without_a_guard_trains_on_streamed_images(zygote: Zygote, tmp_path: Path) -> None:
    for number in range(8):
        path = tmp_path / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("ROOT", str(tmp_path)))
    child = zygote.capture(setup=f"import forking, sys\nsys.exit(forking.run_program({str(script)!r}))")
    assert (child.code, child.stdout, child.stderr) == (0, "trained\n", "")


def test_resident_files_are_decoded_once_and_all_damaged_ones_named(tmp_path: Path, files: FileSource) -> None:
    loader = make_loader("resident", files, Canvas(7, 7, "crop"), batch_size=5, seed=0, device=CPU)
    assert isinstance(loader, ResidentLoader)
    assert loader.inputs.shape == (22, 3, 7, 7)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no image")
    with pytest.raises(ConfigError) as caught:
        ResidentLoader(FileSource(ImageFiles(str(tmp_path), ["a.png", "b.png"]), np.arange(2)), Canvas(4, 4, "crop"),
                       batch_size=1, seed=0, device=CPU)  # fmt: skip
    assert ["a.png" in d.message or "b.png" in d.message for d in caught.value.diagnostics] == [True, True]


# -- the choice


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("dltrain.data.loading.resources.free_memory", lambda device: 4000)
    yield


def test_resident_when_it_fits_into_half_of_the_free_memory(
    array: ArraySource, files: FileSource, little_memory: None
) -> None:
    assert choose_loader(array, Canvas(8, 9), CPU, "auto") == ("resident", "3.2 kB of images are in memory already")
    assert choose_loader(array, Canvas(7, 7, "crop"), CPU, "auto")[0] == "streaming"
    assert choose_loader(files, Canvas(5, 5, "crop"), CPU, "auto") == (
        "resident", "1.6 kB of images, 4.0 kB free in memory",
    )  # fmt: skip
    assert choose_loader(files, Canvas(6, 6, "crop"), CPU, "auto")[0] == "streaming"
    assert choose_loader(files, Canvas(99, 99, "crop"), CPU, "resident") == ("resident", "set in the experiment")


def test_workers(array: ArraySource, files: FileSource) -> None:
    assert choose_workers(array, 4)[0] == 0
    assert choose_workers(files, 4) == (4, "set in the experiment")
    count, reason = choose_workers(files, "auto")
    assert 1 <= count <= 16 and "cores" in reason


def test_free_memory_is_measured() -> None:
    assert 10**6 < free_memory(CPU) < 10**14


FAULTS = """
import resource, sys, torch
from dltrain.data.loading.resources import keep_freed_memory
keep_freed_memory()
def use():
    torch.empty(40 * 2**20, dtype=torch.uint8).fill_(1)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(60):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
sys.exit()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is of the GNU C library")
def test_freed_memory_is_kept_unless_the_environment_says_otherwise(zygote: Zygote) -> None:
    def faults(**environment: str) -> int:
        mine = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | environment
        done = zygote.capture(setup=f"import os\nos.environ.clear(); os.environ.update({mine})\n{FAULTS}")
        assert done.code == 0, done.stderr
        return int(done.stdout)

    assert 2 * faults() < faults(MALLOC_TRIM_THRESHOLD_="131072")  # the heap grows some times; else 60 times


def test_a_process_whose_connection_ends_is_lost_too(files: FileSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has announced its batch, and is gone when the batch's memory is fetched."""

    def ended(self: object) -> None:
        raise EOFError

    loader = StreamingLoader(files, Canvas(8, 8, "crop"), batch_size=4, seed=0, device=CPU, workers=1)
    batches = loader.batches()
    next(batches)
    monkeypatch.setattr(torch.utils.data.dataloader._BaseDataLoaderIter, "__next__", ended)
    with pytest.raises(LostWorkerError, match="its connection ended"):
        for _ in islice(batches, 50):
            pass
    loader.close()


def test_a_killed_decoding_process_is_called_that(files: FileSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """In words, with what takes less memory."""
    from torch.utils.data import _utils

    monkeypatch.setattr(_utils, "MP_STATUS_CHECK_INTERVAL", 0.2)  # seconds between looks at the workers
    loader = StreamingLoader(files, Canvas(8, 8, "crop"), batch_size=4, seed=0, device=CPU, workers=2)
    batches = loader.batches()
    next(batches)
    for worker in multiprocessing.active_children():
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(LostWorkerError, match=r"was killed, .* lack of memory \(.*: data.workers=1"):
        for _ in islice(batches, 50):
            pass
    loader.close()
