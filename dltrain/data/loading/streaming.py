"""The streaming loader: images come batch by batch, from files (decoded by worker processes), a pack or main memory.

order -> paths -> workers decode and place -> pinned memory -> copied ahead on a side stream -> batch
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.images.decoding import load_files, read_files
from dltrain.data.loading.base import Loader
from dltrain.data.loading.pipeline import Crops, First
from dltrain.data.loading.resources import keep_freed_memory
from dltrain.data.types import WHOLE, Batch, Canvas, ImageFiles, Loaded, Share, Source
from dltrain.errors import RunError

PREFETCH = 2
"""Batches that each worker decodes ahead."""


class LostWorkerError(RunError):
    """A process that decodes images has ended: nothing that was asked for is wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "lost process")


class StreamingLoader(Loader):
    """Reads images when their batch is due. Each of its streams, training, the same aside and evaluation, has its own
    workers, started when it is first used, and gives one iterator at a time."""

    def __init__(
        self, source: Source, layout: Any, *, batch_size: int, seed: int, device: torch.device, workers: int = 0,
        share: Share = WHOLE, first: First | None = None, balance: float = 0.0,
    ) -> None:  # fmt: skip
        """first: what training images undergo first; `does_first` says whether the workers do it. Only on a CPU:
        a GPU draws other numbers."""
        super().__init__(source, layout, batch_size=batch_size, seed=seed, device=device, share=share, balance=balance)
        self._files = source.files if source.files is not None and source.files.cache is None else None
        decodes = self._files is not None
        self.workers = workers if decodes else 0
        if self.decodes_aside:
            start_worker_server()
        self._crops = first if decodes and self.device.type == "cpu" and isinstance(first, Crops) else None
        self._pools: dict[str, Pool] = {}
        self._open: WeakSet[Generator[Any, None, None]] = WeakSet()

    @property
    def does_first(self) -> bool:
        return self._crops is not None

    @property
    def decodes_aside(self) -> bool:
        return self.workers > 0

    def batches(self, start_step: int = 0, *, aside: bool = False) -> Generator[Batch, None, None]:
        return self._opened(self._train(start_step, "aside" if aside else "train"))

    def evaluation_batches(self, limit: int | None = None) -> Generator[tuple[Batch, int], None, None]:
        return self._opened(self._evaluate(limit))

    def _train(self, start_step: int, purpose: str) -> Generator[Batch, None, None]:
        images = self._images(purpose, map(self.share.of, self.order.batches(start_step)), start_step)
        for step, (pixels, extents) in zip(count(start_step), images, strict=False):
            indices, epochs = self.examples_of(step)
            yield Batch(pixels, self.targets.index_select(0, indices), indices, epochs, extents)

    def _evaluate(self, limit: int | None) -> Generator[tuple[Batch, int], None, None]:
        plan = self.evaluation_indices(limit)
        images = self._images("evaluate", (indices for indices, _ in plan))
        for (pixels, extents), (host_indices, valid) in zip(images, plan, strict=True):
            indices = host_indices.to(self.device)
            targets = self.targets.index_select(0, indices)
            yield Batch(pixels, targets, indices, torch.zeros_like(indices), extents), valid

    def _opened(self, stream: Generator[Any, None, None]) -> Generator[Any, None, None]:
        self._open.add(stream)
        return stream

    def _images(self, purpose: str, indices: Iterable[Tensor], start: int = 0) -> Iterator[Loaded]:
        """The images of each batch of indices, the first of which is that of step `start`, on the device."""
        if self._files is None:
            return on_device(self._loaded(indices), self.device)
        if purpose not in self._pools:
            decoder = Decoder(self._files, self.layout, self._crops if purpose != "evaluate" else None)
            self._pools[purpose] = Pool(self._files, decoder, self.workers, pin=self.device.type == "cuda")
        return on_device(self._pools[purpose].run(zip(count(start), indices, strict=False)), self.device)

    def _loaded(self, indices: Iterable[Tensor]) -> Iterator[Loaded]:
        """From main memory or a pack; the device works on the last batch meanwhile."""
        for chosen in indices:
            images, extents = self.source.load(chosen.numpy(), self.layout)
            yield images.pin_memory() if self.device.type == "cuda" else images, extents

    def close(self) -> None:
        for stream in list(self._open):
            stream.close()
        self._pools.clear()


def on_device(batches: Iterable[Loaded], device: torch.device) -> Iterator[Loaded]:
    """Batches of the host, copied to the device; to a GPU one ahead, on a stream of its own."""
    if device.type != "cuda":
        for images, extents in batches:
            yield images.to(device), extents.to(device) if extents is not None else None
        return
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead: tuple[Loaded, Any] | None = None
    for images, extents in batches:
        with torch.cuda.stream(stream):
            copied = images.to(device, non_blocking=True), _to(extents, device)
            done = stream.record_event()
        if ahead is not None:
            yield _awaited(*ahead, device)
        ahead = copied, done
    if ahead is not None:
        yield _awaited(*ahead, device)


def _to(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return tensor.to(device, non_blocking=True) if tensor is not None else None


def _awaited(images: Loaded, done: Any, device: torch.device) -> Loaded:
    """Let the computing stream wait for the copy, and the allocator know who reads it."""
    stream = torch.cuda.current_stream(device)
    stream.wait_event(done)
    for tensor in images:
        if tensor is not None:
            tensor.record_stream(stream)
    return images


class Decoder(Dataset[Any]):
    """What a worker process holds: it gets the step and the paths of a batch and returns its images."""

    def __init__(self, files: ImageFiles, canvas: Canvas, crops: Crops | None) -> None:
        self.root, self.channels, self.canvas, self.crops = files.root, files.channels, canvas, crops

    def __getitems__(self, batch: list[Any]) -> Loaded | list[Diagnostic]:
        """The batch, or what is wrong with its files: an error with fields does not travel between processes."""
        step, paths = batch
        try:
            if self.crops is not None:
                return self.crops.of(read_files(self.root, paths, self.channels, self.canvas), step), None
            images, extents = load_files(self.root, paths, self.channels, self.canvas)
        except ConfigError as error:
            return list(error.diagnostics)
        return images, extents if self.canvas.rule == "fit" else None


class Batches:
    """The batch sampler: steps and lists of paths, from whatever steps and indices it was given last."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths
        self.indices: Iterable[tuple[int, Tensor]] = ()

    def __iter__(self) -> Iterator[list[Any]]:
        for step, chosen in self.indices:
            yield [step, [self.paths[i] for i in chosen.tolist()]]


class Pool:
    """Worker processes that decode files; they live until the pool is dropped."""

    def __init__(self, files: ImageFiles, decoder: Decoder, workers: int, *, pin: bool) -> None:
        self.sampler = Batches(files.paths)
        self.loader: DataLoader[Any] = DataLoader(
            decoder,
            batch_sampler=self.sampler,  # its "indices" are a step and paths
            collate_fn=_as_it_is,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=PREFETCH if workers else None,
            multiprocessing_context=_context() if workers else None,
            worker_init_fn=_start_worker,
            pin_memory=pin,
            generator=torch.Generator(),  # else it draws from the one that dropout draws from
        )

    def run(self, indices: Iterable[tuple[int, Tensor]]) -> Iterator[Loaded]:
        """The images of each batch.

        Raises ConfigError naming the files that cannot be read, and LostWorkerError when a process is killed.
        """
        self.sampler.indices = indices
        with _signals_held_back(), _main_hidden():  # processes that start meanwhile see neither
            results = iter(self.loader)
        while (result := self._next(results)) is not None:
            if isinstance(result, list):
                raise ConfigError(result)
            yield result

    def _next(self, results: Iterator[Any]) -> Any:
        try:
            return next(results, None)
        except (RuntimeError, EOFError, ConnectionError, FileNotFoundError) as error:  # the last: of its connection
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):  # all that tells it apart
                raise
            first = (str(error).splitlines() or ["its connection ended"])[0]
            fewer = max(self.loader.num_workers // 2, 0)
            raise LostWorkerError(
                f"a process that decodes images was killed, most often by the system for lack of memory ({first}); "
                f"fewer of them take less: data.workers={fewer}"
            ) from None


def _as_it_is(batch: Any) -> Any:
    return batch


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP wait until the end of the block.

    A terminal or a job scheduler sends them to all processes. The main one decides what to do, for which it may
    need its workers; and one that is interrupted while it starts would print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # when it is started, it lets signals through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _main_hidden() -> Iterator[None]:
    """The main module is an empty one until the end of the block.

    Processes that start meanwhile would else run the program's file again, of which a worker needs nothing: a script
    that trains without `if __name__ == "__main__"` would begin to train in each of them.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _context() -> BaseContext:
    """Workers are forked from a server: a process that has imported what they need and does nothing else. (A fork of
    this one, with its threads and perhaps CUDA, might hang; started from nothing, each would import torch for itself.)
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def start_worker_server() -> None:
    """Let the server import while this process gets ready to train; again does nothing."""
    if _context().get_start_method() == "forkserver":
        with _signals_held_back():
            forkserver.ensure_running()


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where signals cannot be held back
    torch.set_num_threads(1)
    keep_freed_memory()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave_after, args=(parent,), daemon=True).start()
    # The thread that sends batches would be taken down with the interpreter, which torch answers with an abort.
    atexit.register(os._exit, 0)


def _leave_after(parent: BaseProcess) -> None:
    """End this worker when the training process has ended, however it did: torch's workers watch for the process that
    forked them, but that is the server, which lives as long as they do."""
    parent.join()
    os._exit(0)
