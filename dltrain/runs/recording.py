"""Recordings: all that shows a run while it is trained. Values flow in; what fails is left out, and told once."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from dltrain.runs.recorders.base import About, Recorder, Recording, Row
from dltrain.runs.recorders.csv import Table
from dltrain.runs.reports import Histogram
from dltrain.runs.run import FULL

if TYPE_CHECKING:
    from torch import Tensor


class Recordings:
    """The table of a run, and what its recorders opened, in this order. Of a process that follows another: nothing.

    From the end of an epoch on they wait for `write`, which is called when its state is stored: a training that is
    killed before trains the epoch again, and shows it once. A recording that fails is closed and left out, since a
    network or a server must not end a training. A full disk is an error of the run, and so is a table that cannot be
    written.
    """

    def __init__(self, recorders: Sequence[Recorder] = (), *, leads: bool = True) -> None:
        self._table = Table() if leads else None
        self._open: list[tuple[str, Recording]] = [(each.name, each.build()) for each in recorders if leads]
        self._told: list[tuple[str, str]] = []
        self._waiting: list[Callable[[Recording], None]] = []
        self._waits = False

    def __bool__(self) -> bool:
        """Whether anything but the table is recorded."""
        return bool(self._open)

    def start(self, about: About, history: Sequence[Row], step: int) -> None:
        """See Recording.start."""
        self._path = about.path
        self._tell(lambda recording: recording.start(about, history, step))

    def steps(self, rows: Sequence[Row]) -> None:
        """Points of the curves between the ends of epochs."""
        for row in rows:
            self._show(lambda recording, row=row: recording.step(row))  # type: ignore[misc]

    def epoch(self, row: Row) -> None:
        """See Recording.epoch."""
        self._waits = True
        self._show(lambda recording: recording.epoch(row))

    def histograms(self, found: Mapping[str, Histogram], step: int) -> None:
        """See Recording.histograms."""
        if found:
            self._show(lambda recording: recording.histograms(found, step))

    def images(self, name: str, grid: Tensor, step: int = 0) -> None:
        """See Recording.images."""
        self._show(lambda recording: recording.images(name, grid, step))

    def write(self) -> None:
        """Show what waits, and write the table: the state after the last epoch is stored."""
        self._waits = False
        while self._waiting:
            self._tell(self._waiting.pop(0))
        if self._table is not None:
            self._table.write()

    def close(self, state: str) -> None:
        """See Recording.close. What a full disk has no room for is lost."""
        with contextlib.suppress(OSError):
            self._tell(lambda recording: recording.close(state))
        self._table, self._open = None, []

    def news(self) -> list[tuple[str, str]]:
        """What has failed since this was last asked: a sentence and a traceback each."""
        told, self._told = self._told, []
        return told

    def _show(self, show: Callable[[Recording], None]) -> None:
        if self._waits:
            self._waiting.append(show)
        else:
            self._tell(show)

    def _tell(self, show: Callable[[Recording], None]) -> None:
        if self._table is not None:
            show(self._table)
        for name, recording in list(self._open):
            try:
                show(recording)
            except Exception as error:  # whatever a library raises
                if isinstance(error, OSError) and error.errno in FULL:
                    raise
                self._open.remove((name, recording))
                with contextlib.suppress(Exception):
                    recording.close("failed")
                why = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
                text = f"recorder `{name}` failed, and the training goes on without it: {why}"
                self._told.append((f"{text}\nafterwards: dltrain record {self._path} {name}", traceback.format_exc()))


def grid_of(images: Tensor, columns: int = 8, gap: int = 2) -> Tensor:
    """(B, C, H, W) as one picture (3, rows * (H + gap), columns * (W + gap)); grey becomes RGB."""
    from torch.nn import functional as F

    count, channels, height, width = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    shown = images[:, :3] if channels >= 3 else images[:, :1].expand(-1, 3, -1, -1)
    cells = F.pad(shown, (0, gap, 0, gap, 0, 0, 0, rows * columns - count))
    cells = cells.view(rows, columns, 3, height + gap, width + gap).permute(2, 0, 3, 1, 4)
    return cells.reshape(3, rows * (height + gap), columns * (width + gap))
