"""Rows of numbers: look at a table, or at an .npz file of rows, and write an experiment with its reasons.

path -> what the columns seem to be -> the splits -> RowFindings -> YAML text
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dltrain.commands.init_columns import (
    codes_of,
    groups_of,
    left_out,
    require_target,
    split_column,
    target_of,
)  # fmt: skip
from dltrain.commands.init_recipes import batch_of, epochs_of, number, span, yaml_scalar
from dltrain.commands.init_splits import divided
from dltrain.config import ConfigError, Diagnostic
from dltrain.console.streams import printable
from dltrain.data.base import Dataset
from dltrain.data.tables.datasets import Table
from dltrain.data.tables.reading import Table as ReadTable
from dltrain.data.tables.reading import has_header, read_table
from dltrain.data.targets import Classes, Real, TargetSpec
from dltrain.data.types import Splits
from dltrain.tasks.base import Task

WIDTH = 118
FEW_ROWS = 2000
"""Rows below which a tenth for validation is too few to choose an epoch by."""
RARE = 4
"""Times that the most frequent class may be as frequent as the rarest before it is said."""


@dataclass(frozen=True)
class RowFindings:
    """What was seen. data: the lines of the data section. facts: all of it in a line. remarks: on columns. notes: what
    is to be minded. task: with the comment beside it."""

    data: list[str]
    splits: Splits
    facts: str
    remarks: list[str]
    notes: list[str]

    @property
    def rows(self) -> int:
        """Training rows."""
        return len(self.splits.train)


def look_at_table(path: Path, wanted: str | None) -> RowFindings:
    """What a CSV or Parquet file seems to be for. wanted: the column to learn, if it was said.

    Raises ConfigError for a file that cannot be read, and where nothing can be learned.
    """
    header = has_header(str(path))
    table = read_table(str(path), header=header)
    if len(table.columns) < 2:
        note = "one is to be learned, from the others"
        raise ConfigError([Diagnostic(f"{path} has one column alone: `{next(iter(table.columns))}`", notes=(note,))])
    if wanted is not None:
        require_target(table, wanted)
    target, why = (wanted, "as --target says") if wanted is not None else target_of(table)
    split = split_column(table, target)
    out = {name: reason for name, reason in left_out(table, target).items() if name != split}
    features = [name for name in table.columns if name not in {target, split, *out}]
    if not features:
        reasons = [f"`{name}`: {reason}" for name, reason in out.items()]
        raise ConfigError([Diagnostic(f"{path}: no column is left to learn `{target}` from", notes=reasons)])
    keys: dict[str, Any] = {"path": str(path), "target": target}
    keys |= {"header": False} if not header else {}
    keys |= {"split": split} if split is not None else {}
    keys |= {"features": features} if out else {}
    empty = {name: count for name in features if (count := int(table.columns[name].missing.sum()))}
    keys |= {"missing": "indicator"} if empty else {}
    keys |= {"validation": 0.2} if len(table) < FEW_ROWS and split is None else {}
    dataset, splits = divided(Table.model_validate({"name": "table", **keys}))
    keys |= {key: getattr(dataset, key) for key in ("validation", "test") if key in dataset.model_fields_set}
    comments = {
        "target": f"{why}; another one: dltrain init {path} --target COLUMN",
        "header": "the first line holds values, not the names of columns",
        "split": "says train, validation or test of each row",
        "features": "what is left out, and why, stands above",
        "missing": f"{', '.join(f'{name} is empty in {count:,}' for name, count in empty.items())} of the rows",
        "validation": "of few rows more than the usual tenth, by which the best epoch is chosen",
    }
    lines = ["data:", "  name: table", *(_key(key, value, comments.get(key)) for key, value in keys.items())]
    lines += _suggestions(table, features)
    remarks = [f"Left out is {name}: {reason}." for name, reason in out.items()]
    return _findings(lines, splits, remarks, f"{len(table):,} rows; to learn: {target} ({why})")


def look_at_rows(dataset: Dataset, splits: Splits, path: Path) -> RowFindings:
    """What an .npz file with `inputs` holds, which was divided."""
    keys = {"name": dataset.name, "path": str(path)}
    keys |= {key: getattr(dataset, key) for key in ("validation", "test") if key in dataset.model_fields_set}
    return _findings(["data:", *(_key(key, value) for key, value in keys.items())], splits, [], "rows of an array")


def _findings(data: list[str], splits: Splits, remarks: list[str], begin: str) -> RowFindings:
    target, notes = splits.target, [printable(note.text) for note in splits.notes]
    parts = {"train on": splits.train, "validation": splits.validation, "test": splits.test}
    counts = ", ".join(f"{len(part):,} to {name}" if name == "train on" else f"{len(part):,} {name}"
                       for name, part in parts.items() if part is not None)  # fmt: skip
    about = target.counted
    if isinstance(target, Classes):
        classes = Counter(target.names[label] for label in splits.train.targets.tolist())
        about += f" ({span(list(classes.values()))} a class)"
        rarest, least = min(classes.items(), key=lambda item: item[1])
        if max(classes.values()) > RARE * least:
            data = [*data, "  # balance: classes   # draws rare classes as often as frequent ones"]
            notes.insert(
                0, f"class `{rarest}` has few rows ({least}): look at its recall in what `dltrain eval` prints"
            )
    return RowFindings(data, splits, f"{begin}; {about}; {counts}", remarks, notes)


def _suggestions(table: ReadTable, features: Sequence[str]) -> list[str]:
    lines = []
    if codes := codes_of(table, features):
        why = "whole numbers of few values: are they names, and no amounts?"
        lines += _comment(f"categories: {_flow(codes)}   # {why}")
    for name in groups_of(table, list(table.columns)):
        lines += _comment(f"group: {yaml_scalar(name)}   # if rows of one belong together: all of them in one split")
    return lines


def recipe_of_rows(found: RowFindings) -> str:
    """The experiment's text."""
    lines = [*_wrapped(f"{found.facts}.")]
    for remark in found.remarks:
        lines += _wrapped(remark)
    for note in found.notes:
        lines += _wrapped(f"Mind: {note}.")
    lines += ["# To train: dltrain fit THIS_FILE. What else can be written: dltrain list.", *found.data]
    lines.append(_task(found.splits.target))
    batch = batch_of(found.rows, 256)
    epochs = epochs_of(found.rows, batch, steps=3000, least=20, most=50)
    width = 32 if found.rows < 300 else 64 if found.rows < 5000 else 128 if found.rows < 50_000 else 256
    lr, decay, dropout = 3e-3, 1e-2, 0.2 if found.rows < 5000 else 0.0
    lines += [
        f"model: {{name: mlp, hidden: [{width}, {width}], dropout: {dropout}}}   # of standardised numbers",
        f"optimizer: {{name: adamw, lr: {number(lr)}, weight_decay: {number(decay)}, no_decay: [bias, norm]}}",
        "schedule: {name: cosine, warmup: {epochs: 1}}",
        "training:",
        f"  epochs: {epochs}",
        f"  batch_size: {batch}",
        "  average: {name: ema, decay: 0.98, warmup: true}   # evaluated is a running average of the weights",
        "sweep:   # what `dltrain sweep THIS_FILE` searches, judged on the validation split",
        "  trials: 20",
        f"  epochs: {max(epochs // 4, 1)}",
        "  space:",
        f"    optimizer.lr: {{low: {number(lr / 10)}, high: {number(lr * 5)}, log: true}}",
        f"    optimizer.weight_decay: {{low: {number(decay / 50)}, high: {number(decay * 20)}, log: true}}",
        "    model.dropout: {low: 0.0, high: 0.5}",
    ]
    return "\n".join(lines) + "\n"


def _task(target: TargetSpec) -> str:
    """The line of the task, with why, and another that the same target allows."""
    if isinstance(target, Real):
        return "task: regression   # the target is a number"
    if isinstance(target, Classes) and len(target.names) == 2:
        asked = printable(f"is it `{target.names[1]}`, not `{target.names[0]}`?")
        return f"task: binary_classification   # {asked} `classification` has a probability for each"
    task = Task.taking(type(target))
    assert task is not None
    numbers = isinstance(target, Classes) and all(re.fullmatch(r"-?\d+", name) for name in target.names)
    other = "; `regression` would learn them as amounts" if numbers else ""
    return f"task: {task.name}   # it has {target.counted}{other}"


def _key(key: str, value: Any, comment: str | None = None) -> str:
    line = f"  {key}: {_flow(value) if isinstance(value, list) else yaml_scalar(value)}"
    if comment is None:
        return line
    beside = f"{line}   # {comment}"
    return beside if len(beside.rpartition("\n")[2]) <= WIDTH else "\n".join([*_comment(comment), line])


def _comment(text: str) -> list[str]:
    return [f"  {line}" for line in _wrapped(text, WIDTH - 2)]


def _wrapped(text: str, width: int = WIDTH) -> list[str]:
    return textwrap.wrap(printable(text), width, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False)


def _flow(names: Sequence[str]) -> str:
    """A list, over several lines where it is long."""
    lines = ["["]
    for place, name in enumerate(map(yaml_scalar, names)):
        piece = f"{name}, " if place < len(names) - 1 else f"{name}]"
        if len(lines[-1]) + len(piece) > WIDTH - 12:
            lines.append("    ")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)
