"""The table of a measured split: every example with its target, its answer and its loss. `eval` writes it, and all that
asks more of a result than its mean reads it.

    index, [path, row], target, prediction, loss, outputs      worst first; .csv, or .parquet when it is large
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from dltrain.errors import Note, RunError
from dltrain.tasks.measures import Measure
from dltrain.tasks.outcomes import LOSS, PREDICTION, TARGET, CellError, Cells, Outcomes, Values

INDEX, WHERE = "index", ("path", "row")
ENDINGS = (".csv", ".parquet")
MOST_ROWS, MOST_CELLS = 100_000, 10_000_000
"""Of a table as text; larger ones are Parquet."""
MOST_KEPT = 250_000_000
"""Cells of a table that is made at all: a gigabyte of memory."""


@dataclass(frozen=True)
class ExampleTable:
    """The examples of a split. index: (N,) int64, the place of each in the split. where: columns that say where each
    lies, `path` and `row`. losses: (N,)."""

    index: np.ndarray
    where: Mapping[str, Values]
    losses: np.ndarray
    outcomes: Outcomes

    def __len__(self) -> int:
        return len(self.index)

    @property
    def measures(self) -> dict[str, Measure]:
        """The task's metrics by name, as functions of how often each example counts."""
        return self.outcomes.measures(self.losses.astype(np.float64))

    def at(self, rows: np.ndarray) -> ExampleTable:
        """The examples at `rows`, in that order."""
        where = {name: [values[row] for row in rows.tolist()] for name, values in self.where.items()}
        return ExampleTable(self.index[rows], where, self.losses[rows], self.outcomes.at(rows))

    def worst_first(self) -> ExampleTable:
        """In the order of falling losses, those that are no number before all; equal ones in their order."""
        losses = np.where(np.isnan(self.losses), np.inf, self.losses)
        return self.at(np.lexsort((self.index, -losses)))

    def columns(self) -> dict[str, Values]:
        """What stands in the file, by column."""
        return arranged({INDEX: self.index, **self.where}, self.outcomes.columns(), self.losses)

    def encoded(self) -> tuple[str, bytes, list[Note]]:
        """The file: how its name ends, its content, and what there is to say of it."""
        columns = self.worst_first().columns()
        if len(self) <= MOST_ROWS and len(self) * len(columns) <= MOST_CELLS:
            return ".csv", _csv(columns), []
        if find_spec("polars") is None:
            text = f"the table of {len(self):,} examples is written as text; pip install 'dltrain[table]' for Parquet"
            return ".csv", _csv(columns), [Note("info", "table", text)]
        return ".parquet", _parquet(columns), []


def arranged(where: Mapping[str, Values], told: Mapping[str, Values], losses: Values) -> dict[str, Values]:
    """The columns of a table in their order: where each example lies, what is told of it, and its loss."""
    first = {name: told[name] for name in (TARGET, PREDICTION) if name in told}
    return {**where, **first, LOSS: losses, **told}


def pooled(tables: Mapping[str, ExampleTable], column: str) -> ExampleTable:
    """The examples of several tables of the same task, one after another, counted anew.

    tables: by a name, which stands beside each of its examples in `column`.
    """
    first, *others = tables.values()
    total = sum(map(len, tables.values()))
    names = [name for name, table in tables.items() for _ in range(len(table))]
    where = {key: [value for table in tables.values() for value in table.where[key]] for key in first.where}
    losses = np.concatenate([table.losses for table in tables.values()])
    outcomes = first.outcomes.joined([table.outcomes for table in others])
    return ExampleTable(np.arange(total), {column: names, **where}, losses, outcomes)


@dataclass
class Collector:
    """Gathers the table of a split, batch by batch in its order. where: see `ExampleTable`. size: of the split."""

    where: Mapping[str, Values]
    size: int
    _losses: list[np.ndarray] = field(default_factory=list)
    _outcomes: list[Outcomes] = field(default_factory=list)

    def add(self, outcomes: Outcomes, losses: np.ndarray) -> None:
        """The next examples. Of a table that were too large nothing is kept."""
        if self.size * len(outcomes.columns()) <= MOST_KEPT:
            self._losses.append(losses)
            self._outcomes.append(outcomes)

    def table(self) -> ExampleTable | None:
        """All examples, in the order of the split; None where that is too much."""
        if not self._losses:
            return None
        first, *others = self._outcomes
        return ExampleTable(np.arange(self.size), self.where, np.concatenate(self._losses), first.joined(others))


def find_table(stem: Path) -> Path | None:
    """The file of the table with this path but for its ending, if there is one."""
    return next((path for ending in ENDINGS if (path := stem.parent / (stem.name + ending)).is_file()), None)


def read_examples(path: Path, outcomes: type[Outcomes]) -> ExampleTable:
    """The table in a file that `eval` or `predict --truth` wrote, in the order of the split.

    outcomes: those of the run's task. Examples whose truth `predict` did not know are left out.
    Raises RunError, which names the file, the column and the row, where it holds something else.
    """
    try:
        columns = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
        cells = Cells(columns)
        if INDEX in cells:
            return _table(cells, columns, outcomes)
        known = [row for row, text in enumerate(cells.words(LOSS)) if text]
        if not known:
            raise CellError("the truth of no example is known")
        columns = {name: [values[row] for row in known] for name, values in columns.items()}
        return _table(Cells({INDEX: range(len(known)), **columns}), columns, outcomes)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except (CellError, csv.Error, UnicodeDecodeError) as error:
        remedy = "`dltrain eval` writes it anew"
        raise RunError(f"{path} does not hold what dltrain writes there: {error}; {remedy}") from None


def _table(cells: Cells, columns: Mapping[str, Values], outcomes: type[Outcomes]) -> ExampleTable:
    losses, index = cells.numbers(LOSS), cells.numbers(INDEX)
    if not np.array_equal(np.sort(index), np.arange(len(index))):
        raise CellError(f"`{INDEX}` does not count {len(index)} examples from 0")
    where = {name: columns[name] for name in WHERE if name in columns}
    table = ExampleTable(index.astype(np.int64), where, losses, outcomes.read(cells))
    return table.at(np.argsort(table.index))


# -- files


def _csv(columns: Mapping[str, Values]) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*map(texts, columns.values()), strict=True))
    return file.getvalue().encode("utf-8", "backslashreplace")


def texts(values: Values) -> Values:
    """Numbers with as many digits as tell them from all others of their type."""
    return values.astype(str).tolist() if isinstance(values, np.ndarray) and values.dtype.kind == "f" else values


def _parquet(columns: Mapping[str, Values]) -> bytes:
    import polars

    plain = {
        name: values if isinstance(values, np.ndarray) and values.dtype != object else [*map(_sound, values)]
        for name, values in columns.items()
    }
    file = io.BytesIO()
    polars.DataFrame(plain).write_parquet(file)
    return file.getvalue()


def _sound(value: Any) -> Any:
    """Text without what stands for bytes of a file's name that are no UTF-8."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _read_csv(path: Path) -> dict[str, Values]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, strict=True)
        header = next(rows, [])
        if len(set(header)) < len(header) or not header:
            raise CellError("it has no first line that names every column, each once")
        found = []
        for number, row in enumerate(rows, start=1):
            if len(row) != len(header):
                raise CellError(f"row {number} has {len(row)} cells, and there are {len(header)} columns")
            found.append(row)
    if not found:
        raise CellError("it has no rows")
    return dict(zip(header, zip(*found, strict=True), strict=True))


def _read_parquet(path: Path) -> dict[str, Values]:
    if find_spec("polars") is None:
        raise RunError(f"{path} is read with polars, which is not installed: pip install 'dltrain[table]'")
    import polars

    try:
        frame = polars.read_parquet(path)
    except OSError:
        raise
    except Exception as error:  # of damaged files, the parser raises many kinds
        raise CellError(f"it is no Parquet file ({error})"[:200]) from None
    if not len(frame):
        raise CellError("it has no rows")
    return {column.name: column.to_list() for column in frame}
