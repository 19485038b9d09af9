"""What the columns of a table seem to be: the one to learn, those to leave out, those that say something of rows.

All of it is guessed from names and values; `init` writes the reason beside each guess.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.folders.listing import is_image
from dltrain.data.folders.split_names import WORDS
from dltrain.data.tables.columns import FEW, kinds_of
from dltrain.data.tables.encoding import MANY
from dltrain.data.tables.reading import Column, Table
from dltrain.data.targets import Real

TARGETS = (
    "target", "label", "labels", "y", "outcome", "survived", "diagnosis", "species", "class", "response", "price",
    "quality", "rating", "score", "income", "salary", "churn", "result",
)  # fmt: skip
"""Names of columns to learn, the likeliest first."""
ENDS = ("target", "label", "outcome", "diagnosis", "class", "price", "value", "quality")
"""What names such as `sale_price` end with that do as well."""
GROUPS = (
    "patient",
    "subject",
    "user",
    "customer",
    "person",
    "household",
    "family",
    "session",
    "group",
    "site",
    "store",
)
CODES = ("zip", "postal", "postcode", "code", "area", "region", "district", "type", "kind")
IDS = ("id", "ids", "index", "key", "uuid", "guid", "number", "no", "nr", "row")
TELLING = 0.999
"""Size of the correlation with a target from which a column is the target in other words."""

RARE = 5
"""Rows of each value of a column below which it may be by chance that they have one class."""


def words_of(name: str) -> list[str]:
    """`SalePrice` and `sale_price` as sale and price."""
    return re.findall(r"[a-z]+|[0-9]+", re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name).lower())


def target_of(table: Table) -> tuple[str, str]:
    """The column that is probably to be learned, and why."""
    fit = [name for name, column in table.columns.items() if _can_be_target(column)]
    if not fit:
        raise ConfigError([Diagnostic(f"{table.path}: no column looks like something to learn", notes=(_SAY,))])
    named = [(TARGETS.index(name.lower()), name) for name in fit if name.lower() in TARGETS]
    named = named or [(ENDS.index(w[-1]), name) for name in fit if (w := words_of(name)) and w[-1] in ENDS]
    if named:
        return min(named, key=lambda each: each[0])[1], "by its name"
    stem = words_of(Path(table.path).name.partition(".")[0])
    for name in fit:
        if words_of(name) == stem:
            return name, "the file is named after it"
    last = list(table.columns)[-1]
    return fit[-1], "the last column" if fit[-1] == last else f"the last column but for `{last}` and the like"


_SAY = "name it with --target COLUMN"


def require_target(table: Table, name: str) -> None:
    """Raises ConfigError when nothing can be learned of a column that was asked for."""
    column = table.column(name)
    if column.has_one_value:
        raise ConfigError([Diagnostic(f"{table.path}: column `{name}` is the same in every row: nothing to learn")])
    if _looks_like_text(column):
        what = f"column `{name}` holds {_different(column):,} different words or texts"
        raise ConfigError(
            [Diagnostic(f"{table.path}: {what}", notes=(f"no classes: at most {MANY} are taken for those",))]
        )


def left_out(table: Table, target: str) -> dict[str, str]:
    """The columns that are no features, each with why."""
    learned = table.columns[target]
    found = {}
    for name, column in table.columns.items():
        why = None if name == target else _no_feature(column) or _gives_away(column, learned)
        if why is not None:
            found[name] = why
    return found


def split_column(table: Table, target: str) -> str | None:
    """The column that says train, validation or test of each row."""
    for name, column in table.columns.items():
        if column.words is not None and name != target:
            found = set(column.words.tolist())
            if 1 < len(found) <= len(WORDS) and all(word.lower() in WORDS for word in found):
                return name
    return None


def groups_of(table: Table, names: Sequence[str]) -> list[str]:
    """Columns that may say which rows belong together: by their name, and as their values come again."""
    return [
        name
        for name in names
        if set(words_of(name)) & set(GROUPS) and FEW < _different(table.columns[name]) <= len(table) / 2
    ]


def codes_of(table: Table, names: Sequence[str]) -> list[str]:
    """Columns of few whole numbers that may be names: more than 0 and 1, and no measure by their name."""
    found = []
    for name in names:
        numbers = table.columns[name].numbers
        if numbers is None or not _whole(known := numbers[~np.isnan(numbers)]):
            continue
        different = len(np.unique(known))
        if 2 < different <= MANY and (set(words_of(name)) & set(CODES) or different <= FEW // 2):
            found.append(name)
    return found


def _can_be_target(column: Column) -> bool:
    return not (column.has_one_value or column.missing.any() or _looks_like_text(column) or _counts(column))


def _no_feature(column: Column) -> str | None:
    """Why a column tells a network nothing, whatever is learned."""
    if column.missing.all():
        return "it is empty"
    if column.has_one_value:
        return "it is the same in every row"
    different, rows = _different(column), int((~column.missing).sum())
    if column.words is not None and is_image(column.words[~column.missing][0]):
        return "it names pictures: `image: COLUMN` in place of features would train on them"
    if _looks_like_text(column):
        return f"a name or a text: {different:,} different ones in {rows:,} rows"
    if _counts(column):
        return "it numbers the rows"
    if column.numbers is not None and different > FEW and words_of(column.name)[-1:] in [["id"], ["uuid"]]:
        return f"by its name an id: {different:,} different ones"
    return None


def _gives_away(column: Column, target: Column) -> str | None:
    """Why a column is the target in other words: what is known only with the answer makes every measure worthless."""
    both = ~column.missing & ~target.missing
    if column.name.lower() == target.name.lower() or not both.any():
        return None
    if kinds_of([target])[0] is Real and target.numbers is not None:
        if column.numbers is None or np.ptp(column.numbers[both]) == 0:
            return None
        correlation = np.corrcoef(column.numbers[both], target.numbers[both])[0, 1]
        return f"it gives `{target.name}` away: their correlation is {correlation:.4f}" if _near(correlation) else None
    if column.numbers is not None and _different(column) > FEW:
        return None
    said = column.as_words().words
    learned = target.as_words().words
    assert said is not None and learned is not None
    pairs = set(zip(said[both].tolist(), learned[both].tolist()))
    if len(pairs) > len(set(said[both].tolist())) or RARE * len(pairs) > len(said[both]):
        return None
    return f"it gives `{target.name}` away: each of its values has one class alone"


def _near(correlation: float) -> bool:
    return bool(abs(correlation) > TELLING)


def _looks_like_text(column: Column) -> bool:
    if column.words is None:
        return False
    different, rows = _different(column), int((~column.missing).sum())
    return different > MANY or different > max(rows / 2, FEW)


def _counts(column: Column) -> bool:
    """Whether its values are whole numbers without a gap, in rising order, or an id by name with one for each row."""
    if column.numbers is None or len(column.numbers) <= FEW or column.missing.any() or not _whole(column.numbers):
        return False
    if bool((np.diff(column.numbers) == 1).all()):
        return True
    return _different(column) == len(column.numbers) and bool(set(words_of(column.name)) & set(IDS))


def _whole(numbers: np.ndarray) -> bool:
    return bool((numbers == np.floor(numbers)).all())


def _different(column: Column) -> int:
    values = column.numbers if column.numbers is not None else column.words
    assert values is not None
    return len(np.unique(values[~column.missing]))
