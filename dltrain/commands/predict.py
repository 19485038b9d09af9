"""`predict`: answer for image files with a checkpoint, by exactly the preprocessing of its evaluation.

paths -> decoded by threads, a batch ahead -> answers -> a row each on stdout

Nothing is kept: a folder may hold any number of images.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dltrain.commands.evaluate import find_checkpoint
from dltrain.config import ConfigError
from dltrain.console.streams import say
from dltrain.data.evaluation import Views
from dltrain.data.folders.listing import broken, is_image, url_in, walk
from dltrain.data.images.decoding import decode, place
from dltrain.data.images.opening import quietly
from dltrain.data.loading.resources import usable_cores
from dltrain.data.types import Canvas
from dltrain.engine.predictor import Predictor, restore_predictor
from dltrain.errors import RunError
from dltrain.runs.run import Run
from dltrain.tasks.impl.objectives import answer_of

Row = Callable[[Path, dict[str, Any]], None]
"""Writes one image's path, and the answer for it."""


def predict_files(
    paths: Sequence[str], inputs: list[Path], form: str, which: str, device: str, batch_size: int = 64,
    views: Views | None = None, share: float | None = None,
) -> int:  # fmt: skip
    """Write a row per image to stdout: its path, and what the task answers. The answers of several runs or checkpoints
    at `paths` are combined.

    form: `csv` or `jsonl`. Files that cannot be read are named on stderr; the exit code is then 1.
    Raises RunError when a path does not exist or a folder holds no image.
    """
    runs = [Run.open(path) for path in paths]
    files = image_files(inputs)
    found = [find_checkpoint(run, file, which) for run, file in runs]
    predictors = [restore_predictor(state, device, file) for file, state in found]
    target, task = predictors[0].target, predictors[0].task
    for predictor in predictors:
        predictor.look(views, share)
        require_files(predictor)
        if predictor.target != target:
            raise RunError(f"the runs have different {target.kind}: {', '.join(map(str, paths))}")
    targets = [(predictor.canvas, predictor.preprocessing.shape.channels) for predictor in predictors]
    row = _csv(task.columns) if form == "csv" else _json_line
    total = failed = 0
    remarks: list[str] = []
    for batch in decoded(files, targets, batch_size, remarks):
        names, images = [], []
        for name, future in batch:
            total += 1
            try:
                images.append(future.result())
            except ConfigError as error:
                failed += 1
                say(error.diagnostics[0].message)
            else:
                names.append(name)
        for _ in range(len(remarks)):  # threads add more meanwhile
            say(f"warning: {remarks.pop(0)}")
        if images:
            outputs = [
                answer_of(predictor.outputs(torch.stack(seen)))
                for predictor, seen in zip(predictors, zip(*images, strict=True), strict=True)
            ]
            asked = predictors[0].inputs(torch.stack([seen[0] for seen in images]))
            answers = task.answers(task.combine(outputs) if len(outputs) > 1 else outputs[0], asked)
            for name, answer in zip(names, answers, strict=True):
                row(name, answer)
    sys.stdout.flush()
    if failed:
        say(f"{failed} of {total} files could not be read")
    return 1 if failed else 0


def require_files(predictor: Predictor) -> None:
    """Raise RunError for a network of images that no file holds."""
    channels = predictor.preprocessing.shape.channels
    if channels not in (1, 3):
        raise RunError(f"the network takes images of {channels} channels; files are read as grey (1) or RGB (3)")


def _csv(columns: list[str]) -> Row:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["path", *columns])

    def write(path: Path, answer: dict[str, Any]) -> None:
        writer.writerow([path, *(f"{value:.6f}" if isinstance(value, float) else value for value in _flat(answer))])

    return write


def _flat(answer: dict[str, Any]) -> Iterator[Any]:
    """The values of an answer, those of its mappings one by one."""
    for value in answer.values():
        yield from value.values() if isinstance(value, dict) else [value]


def _json_line(path: Path, answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"path": str(path), **answer}, ensure_ascii=False) + "\n")


def decoded(
    files: Iterator[Path], targets: Sequence[tuple[Canvas, int]], batch_size: int, remarks: list[str] | None = None
) -> Iterator[list[tuple[Path, Future[list[Tensor]]]]]:
    """Batches of files, each as (C, H, W) uint8 on every canvas with its channels; the next is decoded meanwhile.

    remarks: takes what there is to say of the values of a file that is read.
    """
    unique = dict.fromkeys(targets)

    def load(path: Path) -> list[Tensor]:
        placed = {target: place(decode(path, target[1], target[0], remarks), target[0])[0] for target in unique}
        return [placed[target] for target in targets]

    with quietly, ThreadPoolExecutor(usable_cores()) as pool:
        try:
            ahead: list[tuple[Path, Future[list[Tensor]]]] = []
            while batch := [(path, pool.submit(load, path)) for path in islice(files, batch_size)]:
                if ahead:
                    yield ahead
                ahead = batch
            if ahead:
                yield ahead
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def image_files(inputs: Iterable[Path]) -> Iterator[Path]:
    """The given files, and every image file below the given folders, in order of their names.

    Raises RunError at once when a path does not exist or a folder holds no image.
    """
    inputs = list(inputs)
    for path in inputs:
        if url := url_in(path):
            raise RunError(f"{url} is a URL, and only files are read: download it first")
        if path.is_symlink() and not path.exists():
            raise RunError(broken(path))
        if path.is_dir():
            if next(_walk(path), None) is None:
                raise RunError(f"there is no image in {path}")
        elif not path.exists():
            raise RunError(f"there is no file {path}")
    return (file for path in inputs for file in (_walk(path) if path.is_dir() else (path,)))


def _walk(folder: Path) -> Iterator[Path]:
    """Files before the folders beside them, both sorted; hidden ones are left out. What cannot be seen is given too:
    reading it says why."""
    for entry in walk(str(folder)):
        if entry.kind == "fault" or (entry.kind == "file" and is_image(entry.name)):
            yield Path(entry.path)
