"""A CSV or Parquet file -> columns of numbers and of words. All mistakes name the file, the column and the row."""

from __future__ import annotations

import csv
import gzip
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dltrain.config import ConfigError, Diagnostic, suggest
from dltrain.data.parsing import parsing

if TYPE_CHECKING:
    import polars

MISSING = ("", "?", "-", "na", "n/a", "nan", "null", "none")
"""What stands for a missing value, in small letters."""
INDEX = "\x00index"
"""What the first column is called for a moment when it has no name: the numbers of rows that pandas writes."""
SEPARATORS = ",;\t|"
ENDINGS = (".csv", ".tsv", ".txt", ".data", ".parquet", ".pq")
"""What names of tables end with; those of texts may have .gz after it."""
MOSTLY = 0.9
"""Share of numbers from which a column is one of numbers, and the rest of its values are mistakes."""


@dataclass(frozen=True)
class Column:
    """A column: `numbers` (N,) float64 with NaN where a value is missing, or `words` (N,) str with "" there."""

    name: str
    numbers: np.ndarray | None = None
    words: np.ndarray | None = None

    @property
    def missing(self) -> np.ndarray:
        """(N,) bool."""
        if self.numbers is not None:
            gone: np.ndarray = np.isnan(self.numbers)
            return gone
        assert self.words is not None
        missing: np.ndarray = self.words == ""
        return missing

    @property
    def has_one_value(self) -> bool:
        """Whether all values are the same, or all are missing."""
        values = self.numbers if self.numbers is not None else self.words
        assert values is not None
        known = values[~self.missing]
        return not len(known) or (bool((known == known[0]).all()) and len(known) == len(values))

    def at(self, places: np.ndarray) -> Column:
        """The values at `places`."""
        numbers, words = (None if values is None else values[places] for values in (self.numbers, self.words))
        return Column(self.name, numbers, words)

    def joined(self, others: Sequence[Column]) -> Column:
        """These values, and then those of columns of the same type."""
        parts = [self, *others]
        if self.numbers is not None:
            return Column(
                self.name, numbers=np.concatenate([part.numbers for part in parts if part.numbers is not None])
            )
        return Column(self.name, words=np.concatenate([part.words for part in parts if part.words is not None]))

    def as_words(self) -> Column:
        """The same column as one of categories: 3.0 becomes `3`."""
        if self.words is not None:
            return self
        assert self.numbers is not None
        words = ["" if np.isnan(value) else f"{value:.12g}" for value in self.numbers]
        return Column(self.name, words=np.array(words, dtype=str))


@dataclass(frozen=True)
class Table:
    """Rows of a file: the columns by name, in its order. rows: (N,) where they stand in it, from 0; None for all."""

    path: str
    columns: dict[str, Column]
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())).missing)

    def number(self, place: int) -> int:
        """Which row of the file, from 1, stands at `place`."""
        return 1 + (place if self.rows is None else int(self.rows[place]))

    def at(self, places: np.ndarray) -> Table:
        """The rows at `places`, in that order."""
        rows = places if self.rows is None else self.rows[places]
        return Table(self.path, {name: column.at(places) for name, column in self.columns.items()}, rows)

    def joined(self, others: Sequence[Table]) -> Table:
        """These rows, and then others of the same file."""
        parts = [self, *others]
        columns = {
            name: column.joined([part.columns[name] for part in others]) for name, column in self.columns.items()
        }
        rows = [np.arange(len(part)) if part.rows is None else part.rows for part in parts]
        return Table(self.path, columns, np.concatenate(rows))

    def only(self, names: Iterable[str]) -> Table:
        """The same rows with these columns. Raises ConfigError when there is no such column."""
        return Table(self.path, {name: self.column(name) for name in names}, self.rows)

    def column(self, name: str) -> Column:
        """The column of this name. Raises ConfigError with the nearest name when there is none."""
        if name in self.columns:
            return self.columns[name]
        near = suggest(name, self.columns)
        notes = [f"did you mean `{near}`?"] if near else []
        notes.append(f"its columns: {', '.join(list(self.columns)[:20])}{', ...' if len(self.columns) > 20 else ''}")
        raise ConfigError([Diagnostic(f"{self.path} has no column `{name}`", notes=notes)])


def values_at(table: Table | None, places: np.ndarray) -> dict[str, np.ndarray]:
    """The values of each column at `places`, numbers or words; nothing of no table."""
    columns = {} if table is None else table.at(places).columns
    either = {name: column.words if column.numbers is None else column.numbers for name, column in columns.items()}
    return {name: values for name, values in either.items() if values is not None}


def joined_tables(tables: Sequence[Table | None]) -> Table | None:
    """The rows of tables, one after another; None where one is missing, or has columns of other names or types."""
    known = [table for table in tables if table is not None]
    kinds = [{name: column.words is None for name, column in table.columns.items()} for table in known]
    alike = len(known) == len(tables) and all(kind == kinds[0] for kind in kinds)
    return known[0].joined(known[1:]) if alike else None


def is_table(path: str | Path) -> bool:
    """Whether a file is a table by its name."""
    return str(path).lower().removesuffix(".gz").endswith(ENDINGS)


def has_header(path: str) -> bool:
    """Whether the first line of a table names its columns. It does not where it holds a number, and something else
    over no column of numbers.

    Raises ConfigError for a file that cannot be read.
    """
    _require_polars()
    if _is_parquet(path):
        return True
    with parsing(path, "a table"):
        cells = [frame.to_list() for frame in _text(path, False)]
    firsts = [_is_number((column[0] or "").strip()) for column in cells]
    named = [bool(column[0]) and column[0].strip().lower() not in MISSING for column in cells]
    for column, number, name in zip(cells, firsts, named):
        known = [cell for cell in column[1:] if cell is not None and cell.strip().lower() not in MISSING]
        if name and not number and known and sum(map(_is_number, known)) >= MOSTLY * len(known):
            return True
    return not any(firsts)


def read_table(path: str, words: frozenset[str] = frozenset(), *, header: bool = True) -> Table:
    """Read a `.parquet` file, or else text: comma, semicolon, tab or | between the values, gzipped or not.

    words: columns that are categories, whatever they hold. header: whether the first line of a text names the columns;
    else they are called column_1, column_2 and so on.
    Raises ConfigError for a file that is not there, is damaged, has two columns of one name, no rows, text among
    numbers, or an infinite number.
    """
    if not Path(path).is_file():
        raise ConfigError([Diagnostic(f"there is no file {path}")])
    _require_polars()
    with parsing(path, "a table"):
        frame = _parquet(path) if _is_parquet(path) else _text(path, header)
    if not len(frame):
        raise ConfigError([Diagnostic(f"{path} has no rows")])
    columns = [_column(path, frame[name], name in words) for name in frame.columns]
    return Table(path, {column.name: column for column in columns})


def _require_polars() -> None:
    if find_spec("polars") is None:
        raise ConfigError(
            [Diagnostic("tables are read with polars, which is not installed", notes=("pip install 'dltrain[table]'",))]
        )


def _is_parquet(path: str) -> bool:
    return path.lower().endswith((".parquet", ".pq"))


def _parquet(path: str) -> polars.DataFrame:
    import polars

    return polars.read_parquet(path)


def _text(path: str, header: bool) -> polars.DataFrame:
    import polars

    content = Path(path).read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        message = f"{path} is not UTF-8 text: see line {line}"
        raise ConfigError([Diagnostic(message, notes=("save it as UTF-8",))]) from None
    first = text.partition("\n")[0]
    if not first.strip():
        raise ConfigError(
            [Diagnostic(f"{path} is empty" if not text.strip() else f"the first line of {path} is empty")]
        )
    separator = max(SEPARATORS, key=first.count)
    names = [name.strip() for name in next(csv.reader(io.StringIO(first), delimiter=separator), [])]
    if header:
        _require_names(path, names)
    else:
        names = [f"column_{number}" for number in range(1, len(names) + 1)]
    named = [name or INDEX for name in names]
    frame = polars.read_csv(
        text.encode(), separator=separator, infer_schema=False, has_header=header, new_columns=named
    )
    if INDEX not in named:
        return frame
    if frame[INDEX].to_list() != [str(row) for row in range(len(frame))]:
        raise ConfigError([Diagnostic(f"column 1 of {path} has no name in the first line")])
    return frame.drop(INDEX)


def _require_names(path: str, names: list[str]) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError([Diagnostic(f"{path} has {names.count(twice[0])} columns called `{twice[0]}`")])
    if "" in names[1:]:
        raise ConfigError([Diagnostic(f"column {names.index('', 1) + 1} of {path} has no name in the first line")])
    if 2 * sum(map(_is_number, names)) > len(names):
        notes = ("write `header: false`, or put the names of the columns into the first line",)
        raise ConfigError(
            [Diagnostic(f"the first line of {path} holds numbers, not the names of columns", notes=notes)]
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _column(path: str, series: polars.Series, as_words: bool) -> Column:
    import polars

    if series.dtype.is_numeric() or series.dtype == polars.Boolean:
        numbers = series.cast(polars.Float64).fill_null(np.nan).to_numpy().copy()
        column = Column(series.name, numbers=_finite(path, series.name, numbers))
        return column.as_words() if as_words else column
    texts = series.cast(polars.String, strict=False).str.strip_chars()
    missing = texts.is_null() | texts.str.to_lowercase().is_in(MISSING)
    texts = texts.set(missing, None)
    numbers = texts.cast(polars.Float64, strict=False)
    odd = numbers.is_null() & ~missing
    known, wrong = len(texts) - missing.sum(), odd.sum()
    if as_words or not known or wrong > (1 - MOSTLY) * known:
        return Column(series.name, words=texts.fill_null("").to_numpy().astype(str))
    if wrong:
        row = int(odd.arg_max() or 0)
        more = f"; {wrong - 1:,} more values are no numbers" if wrong > 1 else ""
        message = f"{path}: `{texts[row]}` in row {row + 1} of column `{series.name}` is no number{more}"
        note = "mend it, leave it empty (see `missing`), or list the column in `categories`"
        raise ConfigError([Diagnostic(message, notes=(note,))])
    return Column(series.name, numbers=_finite(path, series.name, numbers.fill_null(np.nan).to_numpy().copy()))


def _finite(path: str, name: str, numbers: np.ndarray) -> np.ndarray:
    if len(rows := np.flatnonzero(np.isinf(numbers))):
        raise ConfigError([Diagnostic(f"{path}: the number in row {rows[0] + 1} of column `{name}` is infinite")])
    return numbers
