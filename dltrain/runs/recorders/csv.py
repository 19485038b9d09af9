"""metrics.csv: a row an epoch, in every run. The table is always written whole, so that no row stands there twice.

Beside the columns of the metrics stand smoothed ones, which follow from them: nobody reads them back.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from dltrain.runs.recorders.base import About, Recording, Row
from dltrain.tasks.metrics import SPLITS

FILE = "metrics.csv"
SMOOTHED = "smoothed/"
"""What the names of smoothed columns begin with, before the tag that they follow."""


class Table(Recording):
    """The table of a run."""

    def start(self, about: About, history: Sequence[Row], step: int) -> None:
        self._path, self._rows, self._smoothing = about.path / FILE, list(history), about.smoothing
        self._curves = [f"{split}/{name}" for split in reversed(SPLITS) for name in about.metrics]
        self.write()

    def step(self, row: Row) -> None:
        pass

    def epoch(self, row: Row) -> None:
        self._rows.append(row)

    def write(self) -> None:
        """Replace the file by one with all rows so far."""
        from dltrain.runs.checkpoints import write_atomically

        text, rows = io.StringIO(), self._rows
        columns = list(dict.fromkeys(key for row in rows for key in row))
        if self._smoothing:
            beside = smooth(rows, [tag for tag in self._curves if tag in columns], self._smoothing)
            rows = [{**row, **more} for row, more in zip(rows, beside, strict=True)]
            columns = list(dict.fromkeys([*columns, *(key for row in beside for key in row)]))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self._path, text.getvalue().encode())


def smooth(rows: Sequence[Row], tags: Sequence[str], share: float) -> list[dict[str, float]]:
    """The exponential moving averages of some tags, for each row: s = share s + (1 - share) x, divided by
    1 - share^t, so that a constant stays what it is from the first point (as in https://arxiv.org/abs/1412.6980).

    A row that lacks a tag, as no evaluation was due, has none of its average either and counts as no point; neither
    does a value that is not finite.
    """
    found: list[dict[str, float]] = [{} for _ in rows]
    for tag in tags:
        average, weight = 0.0, 0.0
        for row, smoothed in zip(rows, found, strict=True):
            if not math.isfinite(value := row.get(tag, math.nan)):
                continue
            average, weight = share * average + (1 - share) * value, share * weight + (1 - share)
            smoothed[SMOOTHED + tag] = average / weight
    return found


def read_table(run: Path) -> list[dict[str, float]]:
    """The epochs of a run, without what is smoothed; what is no number is left out, and so are rows that tell neither
    epoch nor step."""
    rows = []
    with (run / FILE).open(newline="", encoding="utf-8", errors="replace") as file:
        for record in csv.DictReader(file):
            row = {}
            for key, text in record.items():
                if key is not None and key.startswith(SMOOTHED):
                    continue
                try:
                    row[key] = float(text)
                except (TypeError, ValueError):  # an evaluation that was not due
                    continue
            if all(math.isfinite(row.get(key, math.nan)) for key in ("epoch", "step")):
                rows.append(row)
    return rows
