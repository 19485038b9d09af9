"""`predict`: answer for image files or tables with a checkpoint, by exactly the preprocessing of its evaluation.

paths -> images decoded by threads, a batch ahead; or rows, encoded -> answers -> a row each on stdout

Nothing is kept: a folder may hold any number of images.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dltrain.commands.calibrate import class_probabilities, conformal_sets
from dltrain.commands.calibrating import use_calibration
from dltrain.commands.evaluate import find_checkpoint
from dltrain.commands.resuming import where_it_lies_now
from dltrain.commands.truths import Known, TruthRows, Truths
from dltrain.config import ConfigError
from dltrain.console.streams import say
from dltrain.data.evaluation import Views
from dltrain.data.folders.listing import broken, is_image, url_in, walk
from dltrain.data.images.decoding import decode, place
from dltrain.data.images.opening import quietly
from dltrain.data.loading.resources import usable_cores
from dltrain.data.tables.encoding import Encoding
from dltrain.data.tables.reading import ENDINGS, Table, has_header, is_table, read_table
from dltrain.data.tables.source import RowSource
from dltrain.data.types import Canvas, ImageShape, Vector, require_images
from dltrain.engine.predictor import Predictor, require_same_units, restore_predictor
from dltrain.errors import RunError
from dltrain.runs.run import Run
from dltrain.tasks.impl.objectives import answer_of
from dltrain.tasks.outcomes import listed

Row = Callable[[dict[str, Any]], None]
"""Writes what identifies an example, and the answer for it."""
Examples = Iterator[tuple[list[dict[str, Any]], list[Tensor], Known | None]]
"""Batches: what identifies each example, all of them (B, ...) in the layout of every predictor, and their targets where
these are asked for."""


def predict_files(
    paths: Sequence[str], inputs: list[Path], form: str, which: str, device: str, batch_size: int = 64,
    views: Views | None = None, share: float | None = None, folder: Path | None = None, truth: Sequence[str] = (),
    calibrated: bool = True, abstain: Fraction | None = None,
) -> int:  # fmt: skip
    """Write a row per image, or per row of a table, to stdout: which it is, and what the task answers. The answers of
    several runs or checkpoints at `paths` are combined.

    form: `csv` or `jsonl`. folder: where reconstructions of images are written, if anywhere. truth: where the targets
    stand, see `Truths`: then rows are those that `eval` keeps of a split. calibrated: whether a temperature that is
    kept beside a checkpoint is used. abstain: the share of examples whose true class may be missing in the column
    `set`; the validation split is measured for it. Files that cannot be read are named on stderr; the exit code is
    then 1.
    Raises RunError when a path does not exist or a folder holds no image, ConfigError for a table that does not fit.
    """
    runs = [Run.open(path) for path in paths]
    by_row = any(is_table(path) for path in inputs)
    files = iter(inputs) if by_row else image_files(inputs)
    found = [find_checkpoint(run, file, which) for run, file in runs]
    predictors = [restore_predictor(state, device, file) for file, state in found]
    target, remarks = predictors[0].target, list[str]()
    for predictor, (file, _) in zip(predictors, found, strict=True):
        predictor.look(views, share)
        if calibrated:
            remarks += use_calibration(predictor, file)
        if predictor.target != target:
            raise RunError(f"the runs have different {target.kind}: {', '.join(map(str, paths))}")
    require_same_units(predictors)
    task = predictors[0].task
    task.adopt([predictor.task for predictor in predictors])
    for remark in [*remarks, *task.remarks()]:
        say(remark)
    sets = None
    if abstain is not None:
        experiment = where_it_lies_now(runs[0][0], predictors[0].experiment)
        sets = conformal_sets(predictors, experiment, [state["about"]["fingerprint"] for _, state in found], abstain)
        say(sets.told())
    failures = Failures()
    of_rows = isinstance(predictors[0].preprocessing.shape, Vector)
    truths = Truths(truth, predictors[0], by_row=of_rows) if truth else None
    if of_rows:
        key, examples = ["path", "row"], _rows(files, predictors, batch_size, truths)
    else:
        key, examples = ["path"], _images(files, predictors, batch_size, failures, truths)
    kept = _Reconstructions(folder, predictors[0]) if folder is not None else None
    key += ["reconstruction"] if kept is not None else []
    if truths is not None:
        _write_with_truth(examples, predictors, form)
        return failures.told()
    row = writer(form, [*key, *task.columns, *(SETS if sets is not None else ())])
    for which_ones, tensors, _ in examples:
        together = answer_of(_outputs(predictors, tensors))
        seen = predictors[0].inputs(tensors[0])
        answers = task.answers(together, seen)
        if sets is not None:
            in_sets = sets.holds(class_probabilities(task, together, seen)).tolist()
            answers = [answer | _set(task.classes, held) for answer, held in zip(answers, in_sets, strict=True)]
        if kept is not None:
            which_ones = kept.written(which_ones, together)
        for one, answer in zip(which_ones, answers, strict=True):
            row(one | answer)
    return failures.told()


SETS = ("set", "abstains")
"""The columns of `--abstain`."""


def _set(classes: Sequence[str], held: Sequence[bool]) -> dict[str, Any]:
    """What a row says of its set of classes."""
    names = [name for name, is_in in zip(classes, held, strict=True) if is_in]
    return dict(zip(SETS, (names, len(names) != 1), strict=True))


def _outputs(predictors: Sequence[Predictor], tensors: Sequence[Tensor]) -> Any:
    """What the network puts out, or of several the answer that is combined."""
    outputs = [predictor.outputs(each) for predictor, each in zip(predictors, tensors, strict=True)]
    return predictors[0].task.combine([*map(answer_of, outputs)]) if len(outputs) > 1 else outputs[0]


def _write_with_truth(examples: Examples, predictors: Sequence[Predictor], form: str) -> None:
    """The rows that `eval` keeps of a split, in the order of the examples."""
    rows, lines = TruthRows(predictors), csv.writer(sys.stdout, lineterminator="\n")
    for which_ones, tensors, known in examples:
        assert known is not None
        outputs, is_first = _outputs(predictors, tensors), not rows.examples
        columns = rows.columns(which_ones, outputs, known, as_text=form == "csv")
        if form == "csv":
            lines.writerows([columns] if is_first else [])
            lines.writerows(zip(*columns.values(), strict=True))
            continue
        for values in zip(*columns.values(), strict=True):
            _json_line(dict(zip(columns, values, strict=True)))
    if rows.unknown:
        say(f"the truth of {rows.unknown} of {rows.examples} examples is not known")


class _Reconstructions:
    """Writes what a network makes of images as PNG files in a folder, numbered in the order of the images.

    Raises RunError when it makes no images, or of other channels than files have.
    """

    def __init__(self, folder: Path, predictor: Predictor) -> None:
        if not predictor.task.learns_inputs or not isinstance(predictor.preprocessing.shape, ImageShape):
            name = predictor.experiment.resolved_task.name
            raise RunError(f"--reconstructions is of networks that reconstruct images, and the task is `{name}`")
        require_files(predictor)
        self._folder, self._predictor, self._count = folder, predictor, 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder} cannot be made: {error.strerror}") from None

    def written(self, which_ones: Sequence[dict[str, Any]], outputs: Tensor) -> list[dict[str, Any]]:
        """Write those of a batch; what its rows begin with, with the file of each."""
        found = []
        for one, pixels in zip(which_ones, self._predictor.pixels(outputs), strict=True):
            self._count += 1
            path = self._folder / f"{self._count:06d}-{Path(one['path']).stem}.png"
            Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).numpy()).save(path)
            found.append(one | {"reconstruction": str(path)})
        return found


@dataclass
class Failures:
    """Of so many files, how many could not be read."""

    total: int = 0
    count: int = 0

    def told(self) -> int:
        """The exit code, after all rows are written; and on stderr, how many files failed."""
        sys.stdout.flush()
        if self.count:
            say(f"{self.count} of {self.total} files could not be read")
        return 1 if self.count else 0


def _images(
    files: Iterator[Path], predictors: Sequence[Predictor], batch_size: int, failures: Failures, truths: Truths | None
) -> Examples:
    targets = [(predictor.layout, require_files(predictor)) for predictor in predictors]
    remarks: list[str] = []
    for batch in decoded(files, targets, batch_size, remarks):
        names, images = [], []
        for name, future in batch:
            failures.total += 1
            try:
                images.append(future.result())
            except ConfigError as error:
                failures.count += 1
                say(error.diagnostics[0].message)
            else:
                names.append({"path": str(name)})
        for _ in range(len(remarks)):  # threads add more meanwhile
            say(f"warning: {remarks.pop(0)}")
        if images:
            known = truths.of_files([name["path"] for name in names]) if truths is not None else None
            yield names, [torch.stack(seen) for seen in zip(*images, strict=True)], known


def _rows(files: Iterator[Path], predictors: Sequence[Predictor], batch_size: int, truths: Truths | None) -> Examples:
    header = getattr(predictors[0].experiment.data, "header", None)
    layouts, others = [predictor.layout for predictor in predictors], truths.names if truths is not None else ()
    for which, part in table_parts(files, layouts, header, batch_size, others):
        known = truths.of_rows(part) if truths is not None else None
        yield which, [layout.encode(part) for layout in layouts], known


def table_parts(
    files: Iterable[Path], layouts: Sequence[Encoding], header: bool | None, batch_size: int, others: Sequence[str] = ()
) -> Iterator[tuple[list[dict[str, Any]], Table]]:
    """What identifies each row of the tables, and so many rows at a time, with the columns of all layouts and others.

    Raises RunError for files that are no tables, ConfigError for one that lacks a column.
    """
    for path in files:
        table = _table(path, layouts, header, others)
        for text in RowSource(table, np.zeros(len(table))).unlike(layouts[0]):
            say(f"warning: {path}: {text}")
        for start in range(0, len(table), batch_size):
            part = table.at(np.arange(start, min(start + batch_size, len(table))))
            yield [{"path": str(path), "row": part.number(place)} for place in range(len(part))], part


def _table(path: Path, layouts: Sequence[Encoding], header: bool | None, others: Sequence[str]) -> Table:
    """The columns that the networks see, and others. header: whether the first line names them; None: by what it
    holds."""
    if not is_table(path):
        raise RunError(f"the network takes rows of numbers, and {path} is no table ({', '.join(ENDINGS)})")
    features = [feature for layout in layouts for feature in layout.features]
    words = frozenset(feature.column for feature in features if feature.categories is not None)
    read = read_table(str(path), words, header=has_header(str(path)) if header is None else header)
    return read.only(dict.fromkeys([*(feature.column for feature in features), *others]))


def require_files(predictor: Predictor) -> int:
    """The channels of the images that a network takes. Raises RunError for those that no file holds."""
    try:
        channels = require_images(predictor.preprocessing.shape, "reading image files").channels
    except ConfigError:
        raise RunError(f"the network takes {predictor.preprocessing.shape}, and no image files") from None
    if channels not in (1, 3):
        raise RunError(f"the network takes images of {channels} channels; files are read as grey (1) or RGB (3)")
    return channels


def writer(form: str, columns: list[str]) -> Row:
    """What writes rows on stdout, as `csv` with these columns, or as `jsonl`."""
    return _csv(columns) if form == "csv" else _json_line


def _csv(columns: list[str]) -> Row:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)

    def write(answer: dict[str, Any]) -> None:
        writer.writerow(map(_cell, _flat(answer)))

    return write


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return listed(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.6f}" if isinstance(value, float) else value


def _flat(answer: dict[str, Any]) -> Iterator[Any]:
    """The values of an answer, those of its mappings one by one."""
    for value in answer.values():
        yield from value.values() if isinstance(value, dict) else [value]


def _json_line(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")


def decoded(
    files: Iterator[Path], targets: Sequence[tuple[Canvas, int]], batch_size: int, remarks: list[str] | None = None, *,
    whole: bool = False,
) -> Iterator[list[tuple[Path, Future[list[Tensor]]]]]:  # fmt: skip
    """Batches of files, each as (C, H, W) uint8 on every canvas with its channels; the next is decoded meanwhile.

    remarks: takes what there is to say of the values of a file that is read. whole: in the file's own size, not on the
    canvas.
    """
    unique = dict.fromkeys(targets)

    def load(path: Path) -> list[Tensor]:
        seen = {target: decode(path, target[1], target[0], remarks, whole=whole) for target in unique}
        placed = seen if whole else {target: place(image, target[0])[0] for target, image in seen.items()}
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
