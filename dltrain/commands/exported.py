"""`eval` and `predict` of an exported file: the same rows and reports, from raw files, by onnxruntime."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dltrain.commands.evaluate import measured_part, with_data
from dltrain.commands.predict import Failures, decoded, image_files, table_parts, writer
from dltrain.config import ConfigError
from dltrain.console.display import Display
from dltrain.console.streams import print_result, say
from dltrain.data.tables.encoding import Encoding
from dltrain.data.tables.reading import is_table
from dltrain.data.targets import as_tensor
from dltrain.data.types import Canvas
from dltrain.errors import RunError
from dltrain.export.opened import Opened, open_file
from dltrain.export.raw import Raw, raw_of, raw_rows

Asked = Iterator[tuple[list[dict[str, Any]], Raw]]
"""What identifies each example, and raw examples that go through the file together."""


def require_alone(others: Sequence[str], options: dict[str, Any]) -> None:
    """Raise RunError for what is asked of an exported file beside its own answers."""
    if others:
        raise RunError(f"an exported file answers alone: leave out {', '.join(others)}")
    if given := [name for name, value in options.items() if value is not None]:
        raise RunError(f"an exported file has its own weights and views: leave out {', '.join(given)}")


def evaluate_file(
    path: str, split: str, display: Display, *, overrides: Sequence[str] = (), as_json: bool = False
) -> dict[str, Any]:
    """Measure an exported file on a split of its data, and print the result, as `evaluate_run`.

    Raises RunError when it is no such file or there is no such split, ConfigError when the data cannot be read.
    """
    opened = open_file(path)
    experiment = with_data(opened.experiment, overrides)
    mark = opened.about.fingerprint
    source, about_data, own = measured_part(opened.experiment.data, experiment, split, opened.target, [mark], display)
    if all(own):
        about_data = {"data_fingerprint": about_data["data_fingerprint"]}
    started, task = time.perf_counter(), opened.task
    report = task.report()
    for start in range(0, len(source), 64):
        indices = np.arange(start, min(start + 64, len(source)))
        for raw in raw_of(source, indices, opened.layout):
            outputs, inputs = opened.outputs(raw)
            targets = inputs if task.learns_inputs else as_tensor(source.targets[indices[: len(outputs)]])
            task.measure(report, outputs, targets, len(outputs))
            indices = indices[len(outputs) :]
    result = {"split": split, "file": Path(path).name, "step": opened.about.step, **_used(opened), **report.to_dict()}
    result |= {"seconds": round(time.perf_counter() - started, 3), **about_data}
    used = opened.calibration
    title = [path, split, *([] if used is None else [f"temperature {used.temperature:.4f}"])]
    print_result(json.dumps(result, ensure_ascii=False) if as_json else f"{', '.join(title)}\n{report.table()}")
    return result


def _used(opened: Opened) -> dict[str, Any]:
    """What a result says of the temperature, if any."""
    return {} if opened.calibration is None else {"calibration": opened.calibration.to_dict()}


def predict_file(path: str, inputs: list[Path], form: str, batch_size: int = 64) -> int:
    """Write a row per image, or per row of a table, to stdout, as `predict_files`; the exit code.

    Raises RunError when a path does not exist or is nothing that the file takes.
    """
    opened, failures = open_file(path), Failures()
    by_row, task = any(is_table(each) for each in inputs), opened.task
    if opened.calibration is not None:
        say(opened.calibration.told())
    for remark in task.remarks():
        say(remark)
    layout = opened.layout
    if isinstance(layout, Encoding):
        key, examples = ["path", "row"], _rows(inputs if by_row else image_files(inputs), opened, layout, batch_size)
    elif by_row:
        raise RunError(f"the file takes images, and {next(each for each in inputs if is_table(each))} is a table")
    else:
        key, examples = ["path"], _images(image_files(inputs), opened, layout, batch_size, failures)
    row = writer(form, [*key, *task.columns])
    for which_ones, raw in examples:
        for one, answer in zip(which_ones, task.answers(*opened.outputs(raw)), strict=True):
            row(one | answer)
    return failures.told()


def _images(files: Iterator[Path], opened: Opened, canvas: Canvas, batch_size: int, failures: Failures) -> Asked:
    channels, remarks = opened.about.inputs.channels, list[str]()
    if channels not in (1, 3):
        raise RunError(f"the file takes images of {channels} channels; files are read as grey (1) or RGB (3)")
    for batch in decoded(files, [(canvas, channels)], batch_size, remarks, whole=True):
        for name, future in batch:
            failures.total += 1
            try:
                (image,) = future.result()
            except ConfigError as error:
                failures.count += 1
                say(error.diagnostics[0].message)
            else:
                yield [{"path": str(name)}], {"images": image.permute(1, 2, 0)[None].numpy()}
        for _ in range(len(remarks)):  # threads add more meanwhile
            say(f"warning: {remarks.pop(0)}")


def _rows(files: Any, opened: Opened, layout: Encoding, batch_size: int) -> Asked:
    header = getattr(opened.experiment.data, "header", None)
    for which, part in table_parts(files, [layout], header, batch_size):
        yield which, raw_rows(part, layout)
