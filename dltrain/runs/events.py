"""TensorBoard's event files of a run: a new one for each process that trains it, written in the caller's thread.

A file that is there is never changed or deleted: a TensorBoard may have it open, and reads on in the next one. That
begins by telling it to forget what lies beyond the step from which the training goes on, and repeats nothing.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltrain.runs.reports import Histogram

if TYPE_CHECKING:
    from torch import Tensor

PATTERN = "events.out.tfevents.*"


class EventFile:
    """The event file of this process. Every method raises OSError when the disk is full: no thread writes it, whose
    error nobody would see."""

    def __init__(self, folder: Path, step: int) -> None:
        """step: the last one that remains of what earlier files hold."""
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        earlier = sorted(folder.glob(PATTERN))
        self._seen = {(value.tag, at) for at, value in _values(earlier) if at <= step}  # what they lack comes again
        self._file = (folder / _next_name(earlier)).open("xb")
        self._records = RecordWriter(self._file)
        self._write(0, file_version="brain.Event:2")
        if earlier:  # TensorBoard forgets the points at this step and after it
            self._write(step + 1, session_log=SessionLog(status=SessionLog.START))

    def summary(self, summary: Any, step: int = 0) -> None:
        """Write those values of a `Summary` message that no file holds yet at this step."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [value for value in summary.value if (value.tag, step) not in self._seen]
        self._seen |= {(value.tag, step) for value in values}
        if values:
            self._write(step, summary=Summary(value=values))

    def hyperparameters(self, values: Mapping[str, Any], metrics: list[str]) -> None:
        """A row of TensorBoard's table. metrics: the tags that it may show beside them."""
        from torch.utils.tensorboard.summary import hparams

        for summary in hparams(dict(values), dict.fromkeys(metrics)):  # type: ignore[no-untyped-call]
            self.summary(summary)

    def charts(self, layout: Mapping[str, Mapping[str, list[str]]]) -> None:
        """TensorBoard's page of custom charts. layout: by heading and title, the tags that a chart shows."""
        from torch.utils.tensorboard.summary import custom_scalars

        lines = {
            name: {title: ("Multiline", tags) for title, tags in charts.items()} for name, charts in layout.items()
        }
        self.summary(custom_scalars(lines))  # type: ignore[no-untyped-call]

    def image(self, tag: str, image: Tensor, step: int = 0) -> None:
        """A picture (3, H, W) in 0..1."""
        from torch.utils.tensorboard.summary import image as summary_of

        self.summary(summary_of(tag, image, dataformats="CHW"), step)  # type: ignore[no-untyped-call]

    def histograms(self, found: Mapping[str, Histogram], step: int) -> None:
        """How values are spread, by tag."""
        from torch.utils.tensorboard.summary import histogram_raw

        for tag, each in found.items():
            least, greatest, count = each.edges[0], each.edges[-1], sum(each.counts)
            limits = [least, *each.edges[1:]]  # TensorBoard reads a bucket from the limit before it
            self.summary(
                histogram_raw(tag, least, greatest, count, each.total, each.squares, limits, [0, *each.counts]),  # type: ignore[no-untyped-call]
                step,
            )

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by tag."""
        from torch.utils.tensorboard.summary import scalar

        for tag, value in values.items():
            self.summary(scalar(tag, value), step)  # type: ignore[no-untyped-call]

    def flush(self) -> None:
        """Let readers see what was written."""
        self._file.flush()

    def close(self) -> None:
        """Close the file; what a full disk has no room for is lost."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _write(self, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), step=step, **content).SerializeToString())


def _values(files: list[Path]) -> Iterator[tuple[int, Any]]:
    """The step of every value in event files, and the value. What is damaged or no event ends its file."""
    if not files:
        return
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    for path in files:
        with contextlib.suppress(Exception):  # of foreign bytes, its parsers raise many kinds
            for record in RawEventFileLoader(str(path)).Load():
                event = Event.FromString(record)
                for value in event.summary.value:
                    yield event.step, value


def read_scalars(folder: Path) -> dict[int, dict[str, float]]:
    """The numbers in the event files of a run: by step, a row with that `step`. What was written again counts last."""
    rows: dict[int, dict[str, float]] = {}
    for step, value in _values(sorted(folder.glob(PATTERN))):
        if value.HasField("simple_value"):
            rows.setdefault(step, {"step": step})[value.tag] = value.simple_value
    return rows


def read_histograms(folder: Path) -> dict[tuple[str, int], Histogram]:
    """The histograms in the event files of a run, by tag and step."""
    found: dict[tuple[str, int], Histogram] = {}
    for step, value in _values(sorted(folder.glob(PATTERN))):
        if value.HasField("histo"):
            own = value.histo
            counts = [int(count) for count in own.bucket[1:]]
            found[value.tag, step] = Histogram(list(own.bucket_limit), counts, own.sum, own.sum_squares)
    return found


def read_images(folder: Path) -> dict[tuple[str, int], Tensor]:
    """The pictures (3, H, W) in 0..1 in the event files of a run, by tag and step."""
    values = [(step, value) for step, value in _values(sorted(folder.glob(PATTERN))) if value.HasField("image")]
    return {(value.tag, step): picture(io.BytesIO(value.image.encoded_image_string)) for step, value in values}


def picture(file: Path | io.BytesIO) -> Tensor:
    """An image file as (3, H, W) in 0..1."""
    import numpy as np
    import torch
    from PIL import Image

    return torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1) / 255


def _next_name(earlier: list[Path]) -> str:
    """A name that sorts behind those of all earlier files, whatever the clock says: readers take them in this order."""
    times = [int(found[1]) for path in earlier if (found := re.search(r"tfevents\.(\d+)", path.name))]
    seconds = max([int(time.time()), *(before + 1 for before in times)])
    return f"{PATTERN[:-1]}{seconds:010d}.{socket.gethostname()}.{os.getpid()}.{len(earlier)}"
