"""What was right and what was answered, for every example of a split that was measured: the columns of its table.

Columns have the same names when they are written and when they are read; so both stand here. numpy; no torch.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dltrain.tasks.measures import (
    Decisions,
    Measure,
    Ranking,
    explained,
    mean_average_precision,
    mean_distance,
    mean_of,
    root_mean_square,
)

if TYPE_CHECKING:
    from typing_extensions import Self

TARGET, PREDICTION, LOSS = "target", "prediction", "loss"
PROBABILITY = "probability of "
OF_TARGET, OF_PREDICTION = "target of ", "prediction of "
Values = Sequence[Any] | np.ndarray
"""Of a column, one an example: words, whole numbers or numbers."""


class CellError(ValueError):
    """A table does not hold what is written there; the message says which column and row."""


class Cells:
    """A table as it was read: the values of each column by its name. Rows are counted from 1 in messages."""

    def __init__(self, columns: Mapping[str, Values]) -> None:
        self._columns = columns

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def words(self, name: str) -> list[str]:
        """A column of words. Raises CellError when there is none of that name."""
        return list(map(str, self._column(name)))

    def numbers(self, name: str) -> np.ndarray:
        """A column of numbers (N,) float64; those that are infinite or not a number may occur. Raises CellError."""
        values = self._column(name)
        try:
            return np.array(values, dtype=np.float64)
        except (ValueError, TypeError):
            row = next(row for row, value in enumerate(values) if not _is_number(value))
            raise CellError(f"`{values[row]}` in row {row + 1} of column `{name}` is no number") from None

    def after(self, prefix: str) -> list[str]:
        """How the names of columns go on that begin with `prefix`, in their order."""
        return [name.removeprefix(prefix) for name in self._columns if name.startswith(prefix)]

    def matrix(self, prefix: str, names: Sequence[str]) -> np.ndarray:
        """(N, n) float64: the columns called `prefix` and a name. Raises CellError when there is none of a name."""
        if not names:
            raise CellError(f"it has no column `{prefix}...`")
        return np.stack([self.numbers(prefix + name) for name in names], axis=1)

    def probabilities(self, names: Sequence[str]) -> np.ndarray:
        """(N, n) float32: those of each name. Raises CellError for a number that is no probability."""
        found = self.matrix(PROBABILITY, names)
        if (wrong := (found < 0) | (found > 1)).any():
            row, column = np.argwhere(wrong)[0]
            where = f"in row {row + 1} of column `{PROBABILITY}{names[column]}`"
            raise CellError(f"{found[row, column]:g} {where} is no probability")
        return found.astype(np.float32)

    def _column(self, name: str) -> Values:
        if name not in self._columns:
            raise CellError(f"it has no column `{name}`")
        return self._columns[name]


@dataclass(frozen=True)
class Outcomes:
    """Of a task that says nothing of single examples but their losses. Fields that are arrays have a row an example."""

    def columns(self) -> dict[str, Values]:
        """The columns by name, in order, without that of the losses."""
        return {}

    @classmethod
    def read(cls, cells: Cells) -> Self:
        """The same from a table. Raises CellError where it holds something else."""
        return cls()

    def measures(self, losses: np.ndarray) -> dict[str, Measure]:
        """The task's metrics by name, as far as single examples tell them. losses: (N,)."""
        return {LOSS: mean_of(losses)}

    @property
    def right(self) -> np.ndarray | None:
        """(N,) bool, whether each answer is right; None where answers are not just right or wrong."""
        return None

    @property
    def sureness(self) -> np.ndarray | None:
        """(N,) from 0 to 1, how probable each answer is held to be; None where nothing says it."""
        return None

    def sentence(self, row: int) -> str:
        """What is right of an example, and what was answered."""
        return ""

    def at(self, rows: np.ndarray) -> Self:
        """The examples at `rows`, in that order."""
        return dataclasses.replace(self, **{name: values[rows] for name, values in self._arrays().items()})

    def joined(self, others: Sequence[Self]) -> Self:
        """These examples, and then others of the same task."""
        parts = [part._arrays() for part in (self, *others)]
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return dataclasses.replace(self, **whole)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}


@dataclass(frozen=True)
class ClassOutcomes(Outcomes):
    """One class an example. target, prediction: (N,) int64, places in `names`. probabilities: (N, K)."""

    names: Sequence[str]
    target: np.ndarray
    prediction: np.ndarray
    probabilities: np.ndarray

    def columns(self) -> dict[str, Values]:
        words = np.array(self.names, dtype=object)
        named = {PROBABILITY + name: column for name, column in zip(self.names, self.probabilities.T, strict=True)}
        return {TARGET: words[self.target], PREDICTION: words[self.prediction], **named}

    @classmethod
    def read(cls, cells: Cells) -> Self:
        names = cells.after(PROBABILITY)
        probabilities = cells.probabilities(names)
        if (wrong := np.abs(probabilities.sum(1) - 1) > 1e-3).any():
            row = int(wrong.argmax())
            raise CellError(f"the probabilities in row {row + 1} have the sum {probabilities[row].sum():.4f}, not 1")
        places = {name: place for place, name in enumerate(names)}
        target, prediction = (_places(cells, column, places) for column in (TARGET, PREDICTION))
        return cls(names, target, prediction, probabilities)

    def measures(self, losses: np.ndarray) -> dict[str, Measure]:
        return {"accuracy": mean_of(self.right), **super().measures(losses)}

    @property
    def right(self) -> np.ndarray:
        right: np.ndarray = self.target == self.prediction
        return right

    @property
    def sureness(self) -> np.ndarray:
        """The probability of the class that is answered."""
        found: np.ndarray = self.probabilities[np.arange(len(self.prediction)), self.prediction].astype(np.float64)
        return found

    def sentence(self, row: int) -> str:
        target, answer = self.names[self.target[row]], self.names[self.prediction[row]]
        return f"{target}, answered {answer} ({self.sureness[row]:.0%})"


@dataclass(frozen=True)
class BinaryOutcomes(ClassOutcomes):
    """One of two classes an example, the second of which is called positive."""

    def measures(self, losses: np.ndarray) -> dict[str, Measure]:
        decisions = Decisions(self.prediction[:, None] == 1, self.target[:, None] == 1)
        with np.errstate(divide="ignore"):  # both probabilities: near 1 one of them says no more, near 0 it does
            no, yes = np.log(self.probabilities.astype(np.float64)).T
        ranking = Ranking(yes - no, self.target == 1)
        return {
            **super().measures(losses), "precision": decisions.precision, "recall": decisions.recall,
            "f1": decisions.micro_f1, "roc_auc": ranking.roc_auc, "average_precision": ranking.average_precision,
        }  # fmt: skip


@dataclass(frozen=True)
class LabelOutcomes(Outcomes):
    """Any number of labels an example. target, prediction: (N, K) bool. probabilities: (N, K)."""

    names: Sequence[str]
    target: np.ndarray
    prediction: np.ndarray
    probabilities: np.ndarray

    def columns(self) -> dict[str, Values]:
        named = {PROBABILITY + name: column for name, column in zip(self.names, self.probabilities.T, strict=True)}
        words = [[listed(np.array(self.names)[row]) for row in rows] for rows in (self.target, self.prediction)]
        return {TARGET: words[0], PREDICTION: words[1], **named}

    @classmethod
    def read(cls, cells: Cells) -> Self:
        names = cells.after(PROBABILITY)
        places = {name: place for place, name in enumerate(names)}
        target, prediction = (_label_rows(cells, column, places) for column in (TARGET, PREDICTION))
        return cls(names, target, prediction, cells.probabilities(names))

    def measures(self, losses: np.ndarray) -> dict[str, Measure]:
        decisions = Decisions(self.prediction, self.target)
        precision = mean_average_precision(self.probabilities, self.target)
        named = {"map": precision, "macro_f1": decisions.macro_f1, "micro_f1": decisions.micro_f1}
        return {**named, **super().measures(losses)}

    @property
    def sureness(self) -> np.ndarray:
        """The probability of the answer to the question that is least sure."""
        found: np.ndarray = np.maximum(self.probabilities, 1 - self.probabilities).min(1).astype(np.float64)
        return found

    def sentence(self, row: int) -> str:
        target, answer = (listed(np.array(self.names)[rows[row]]) or "none" for rows in (self.target, self.prediction))
        return f"{target}, answered {answer}"


@dataclass(frozen=True)
class NumberOutcomes(Outcomes):
    """Numbers in their own units. target, prediction: (N, n). One number is not named in the table."""

    names: Sequence[str]
    target: np.ndarray
    prediction: np.ndarray

    def columns(self) -> dict[str, Values]:
        if len(self.names) == 1:
            return {TARGET: self.target[:, 0], PREDICTION: self.prediction[:, 0]}
        both = ((OF_TARGET, self.target), (OF_PREDICTION, self.prediction))
        return {
            prefix + name: column for prefix, values in both for name, column in zip(self.names, values.T, strict=True)
        }

    @classmethod
    def read(cls, cells: Cells) -> Self:
        if TARGET in cells:
            return cls([TARGET], cells.numbers(TARGET)[:, None], cells.numbers(PREDICTION)[:, None])
        names = cells.after(OF_TARGET)
        return cls(names, cells.matrix(OF_TARGET, names), cells.matrix(OF_PREDICTION, names))

    def measures(self, losses: np.ndarray) -> dict[str, Measure]:
        target = self.target.astype(np.float64)
        errors = self.prediction - target
        return {
            "rmse": root_mean_square(errors), "mae": mean_distance(errors), "r2": explained(errors, target),
            **super().measures(losses),
        }  # fmt: skip

    def sentence(self, row: int) -> str:
        pairs = zip(self.names, self.target[row], self.prediction[row], strict=True)
        shown = [(name, f"{_told(target)}, answered {_told(answer)}") for name, target, answer in pairs]
        return shown[0][1] if len(shown) == 1 else "; ".join(f"{name} {words}" for name, words in shown)


@dataclass(frozen=True)
class InputOutcomes(Outcomes):
    """How far a reconstruction is from its input. mse: (N,), the mean squared error of each example."""

    mse: np.ndarray

    def columns(self) -> dict[str, Values]:
        return {"mse": self.mse}

    @classmethod
    def read(cls, cells: Cells) -> Self:
        return cls(cells.numbers("mse"))

    def measures(self, losses: np.ndarray) -> dict[str, Measure]:
        return {**super().measures(losses), "mse": mean_of(self.mse)}

    def sentence(self, row: int) -> str:
        return f"mse {self.mse[row]:.4g}"


def _told(value: float) -> str:
    return f"{value:,.0f}" if 1e5 <= abs(value) < 1e12 else f"{value:.5g}"


def listed(names: Iterable[str]) -> str:
    """Names in one cell, `ant; bee`; those that hold the separator, a quote or a space at an end stand in quotes."""
    return "; ".join('"' + name.replace('"', '""') + '"' if _needs_quotes(name) else name for name in names)


def unlisted(cell: str) -> list[str]:
    """The names that `listed` put into a cell."""
    return next(csv.reader(io.StringIO(cell, newline=""), delimiter=";", skipinitialspace=True), [])


def _needs_quotes(name: str) -> bool:
    return name != name.strip() or not name or any(c in name for c in ';"\r\n')


def _places(cells: Cells, column: str, places: Mapping[str, int]) -> np.ndarray:
    """(N,) int64 of the names in a column."""
    found = [places.get(word, -1) for word in cells.words(column)]
    if -1 in found:
        raise _unknown(cells.words(column)[found.index(-1)], found.index(-1), column)
    return np.array(found, dtype=np.int64)


def _label_rows(cells: Cells, column: str, places: Mapping[str, int]) -> np.ndarray:
    """(N, K) bool of the lists of names in a column."""
    words = cells.words(column)
    found = np.zeros((len(words), len(places)), dtype=bool)
    for row, cell in enumerate(words):
        for name in unlisted(cell):
            if name not in places:
                raise _unknown(name, row, column)
            found[row, places[name]] = True
    return found


def _unknown(name: str, row: int, column: str) -> CellError:
    return CellError(f"`{name}` in row {row + 1} of column `{column}` is none of the names that have a probability")


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
