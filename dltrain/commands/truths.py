"""`predict --truth`: what the answers should have been, where the files say it, and the rows that tell both.

a column of a table, or the name of the folder that a file lies in -> targets, and which of them are known
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dltrain.data.tables.columns import read_target
from dltrain.data.tables.reading import Table
from dltrain.data.targets import Classes, TargetSpec, as_tensor
from dltrain.engine.predictor import Predictor
from dltrain.errors import RunError
from dltrain.evidence.examples import arranged, texts
from dltrain.tasks.impl.objectives import answer_of
from dltrain.tasks.outcomes import LOSS, OF_TARGET, TARGET

FOLDER = "folder"
"""What is written for the names of folders."""


@dataclass(frozen=True)
class Known:
    """Targets (N, ...) as a source has them, and whether each is known (N,); what is not known is anything."""

    targets: np.ndarray
    known: np.ndarray


class Truths:
    """Where the targets of a network stand. Raises RunError where they cannot."""

    def __init__(self, names: Sequence[str], predictor: Predictor, *, by_row: bool) -> None:
        """names: of columns, or FOLDER. by_row: whether the network takes rows of tables."""
        task = predictor.experiment.resolved_task.name
        if predictor.task.learns_inputs:
            raise RunError(f"task `{task}` is judged by the inputs themselves: leave --truth out")
        self.names, self.target = list(names), predictor.target
        by_folder = self.names == [FOLDER]
        if by_folder == by_row:
            what = "rows of tables: name a column" if by_row else "image files: write --truth folder"
            raise RunError(f"the network takes {what}")
        if by_folder and not isinstance(self.target, Classes):
            raise RunError(f"the name of a folder is a class, and the network has learned {self.target.words}")

    def of_files(self, paths: Sequence[str]) -> Known:
        """By the names of the folders that they lie in; those that are no class say nothing."""
        places = {name: place for place, name in enumerate(self.target.names)}
        found = np.array([places.get(Path(path).parent.name, -1) for path in paths], dtype=np.int64)
        return Known(found.clip(min=0), found >= 0)

    def of_rows(self, table: Table) -> Known:
        """By the columns; where one is empty, a row says nothing. Raises ConfigError for what is no target, RunError
        for one that the network does not know."""
        wanted = ["the class"] if isinstance(self.target, Classes) else list(self.target.names)
        if len(self.names) != len(wanted):
            raise RunError(f"--truth is to be given {len(wanted)} times, with the columns of {', '.join(wanted)}")
        known = ~np.any([table.column(name).missing for name in self.names], axis=0)
        of_one = isinstance(self.target, Classes)
        whole = np.zeros(len(table), np.int64) if of_one else np.zeros((len(table), len(self.names)))
        if known.any():
            own, values = read_target(table.at(np.flatnonzero(known)), self.names, type(self.target))
            whole[known] = self._as_learned(own, values, table.path)
        return Known(whole, known)

    def _as_learned(self, own: TargetSpec, values: np.ndarray, path: str) -> np.ndarray:
        """Values in the order in which the network has learned them."""
        if isinstance(own, Classes):
            if unknown := [name for name in own.names if name not in self.target.names]:
                knows = ", ".join(f"`{name}`" for name in self.target.names[:8])
                what = f"`{unknown[0]}` in column `{self.names[0]}` of {path} is no class of the network"
                raise RunError(f"{what}, which knows {knows}{', ...' if len(self.target.names) > 8 else ''}")
            return own.adopted(values, self.target.names)
        if set(own.names) == set(self.target.names):
            return own.adopted(values, self.target.names)
        return values  # other names, in the order of the command


class TruthRows:
    """Makes of answers and targets the columns that `eval` keeps of a split, and counts what is not known."""

    def __init__(self, predictors: Sequence[Predictor]) -> None:
        first, combined = predictors[0], len(predictors) > 1
        self.task = first.measuring_task(combined=combined or not first.evaluation.is_plain)
        self.task.adopt([predictor.task for predictor in predictors])
        self.examples = self.unknown = 0

    def columns(
        self, which_ones: Sequence[Mapping[str, Any]], outputs: Any, known: Known, *, as_text: bool
    ) -> dict[str, list[Any]]:
        """The columns of a batch, with None for what is not known. outputs: what one network puts out, or what is
        combined of several. as_text: whether numbers are written as in the tables of `eval`."""
        targets = as_tensor(known.targets).to(answer_of(outputs).device)
        losses = self.task.measured_losses(outputs, targets)
        told = self.task.outcomes(answer_of(outputs), targets).columns()
        self.examples += len(which_ones)
        self.unknown += int((~known.known).sum())
        where = {key: [one[key] for one in which_ones] for key in which_ones[0]}
        found = {}
        for name, values in arranged(where, told, losses.cpu().numpy()).items():
            cells = np.asarray(texts(values) if as_text else values, dtype=object).tolist()
            if name in (TARGET, LOSS) or name.startswith(OF_TARGET):
                cells = [cell if sure else None for cell, sure in zip(cells, known.known, strict=True)]
            found[name] = cells
        return found
