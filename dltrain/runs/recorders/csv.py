"""metrics.csv: a row an epoch, in every run. The table is always written whole, so that no row stands there twice."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from dltrain.runs.recorders.base import About, Recording, Row

FILE = "metrics.csv"


class Table(Recording):
    """The table of a run."""

    def start(self, about: About, history: Sequence[Row], step: int) -> None:
        self._path, self._rows = about.path / FILE, list(history)
        self._write()

    def step(self, row: Row) -> None:
        pass

    def epoch(self, row: Row) -> None:
        self._rows.append(row)
        self._write()

    def _write(self) -> None:
        from dltrain.runs.checkpoints import write_atomically

        text = io.StringIO()
        columns = list(dict.fromkeys(key for row in self._rows for key in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_atomically(self._path, text.getvalue().encode())


def read_table(run: Path) -> list[dict[str, float]]:
    """The epochs of a run; what is no number is left out, and so are rows that tell neither epoch nor step."""
    rows = []
    with (run / FILE).open(newline="", encoding="utf-8", errors="replace") as file:
        for record in csv.DictReader(file):
            row = {}
            for key, text in record.items():
                try:
                    row[key] = float(text)
                except (TypeError, ValueError):  # an evaluation that was not due
                    continue
            if all(math.isfinite(row.get(key, math.nan)) for key in ("epoch", "step")):
                rows.append(row)
    return rows
