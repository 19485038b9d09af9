"""TensorBoard's event files of a run: a new one for each process that trains it, written in the caller's thread.

A file that is there is never changed or deleted: a TensorBoard may have it open, and reads on in the next one. That
begins by telling it to forget what lies beyond the step from which the training goes on, and repeats nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        self._seen = _points(earlier, step)
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

    def image(self, tag: str, image: Tensor) -> None:
        """A picture (3, H, W) in 0..1."""
        from torch.utils.tensorboard.summary import image as summary_of

        self.summary(summary_of(tag, image, dataformats="CHW"))  # type: ignore[no-untyped-call]

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


def _points(files: list[Path], step: int) -> set[tuple[str, int]]:
    """The tag and the step of every value in event files, up to a step. What is damaged or no event
    ends its file: what it lacks is written again."""
    if not files:
        return set()
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    found = set()
    for path in files:
        with contextlib.suppress(Exception):  # of foreign bytes, its parsers raise many kinds
            for record in RawEventFileLoader(str(path)).Load():
                event = Event.FromString(record)
                found |= {(value.tag, event.step) for value in event.summary.value if event.step <= step}
    return found


def _next_name(earlier: list[Path]) -> str:
    """A name that sorts behind those of all earlier files, whatever the clock says: readers take them in this order."""
    times = [int(found[1]) for path in earlier if (found := re.search(r"tfevents\.(\d+)", path.name))]
    seconds = max([int(time.time()), *(before + 1 for before in times)])
    return f"{PATTERN[:-1]}{seconds:010d}.{socket.gethostname()}.{os.getpid()}.{len(earlier)}"
