"""Which classes were taken for which: a matrix whose cells open their examples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

from dltrain.evidence.figures import heat_map
from dltrain.evidence.report.blocks import Block, Drawn, Opening, Openings, Section, Words
from dltrain.evidence.report.faces import Faces
from dltrain.evidence.report.numbers import confusion
from dltrain.tasks.outcomes import ClassOutcomes

MOST_CLASSES = 30
"""In the matrix; of more, those with the most mistakes."""
OF_ERRORS, OF_HITS = 12, 6
"""Examples that a cell opens, at most."""
MOST_CELLS, MOST_SHOWN = 240, 900
"""Cells that open, and examples of all of them."""


def matrix(outcomes: ClassOutcomes, faces: Faces) -> Section:
    """The matrix, and behind each cell its examples: those with the greatest loss first."""
    counts = confusion(outcomes.target, outcomes.prediction, len(outcomes.names))
    places = _most_mistaken(counts)
    names = [outcomes.names[place] for place in places]
    cells = [(int(row), int(column)) for row, column in _by_mistakes(counts) if row in places and column in places]
    chosen = _examples(outcomes, faces.table.losses, cells[:MOST_CELLS])
    opened = {cell: rows for cell, rows in chosen.items() if rows}

    def note(row: int, column: int) -> str:
        count = counts[places[row], places[column]]
        what = "right" if row == column else f"taken for {names[column]}"
        return f"{names[row]}, {what}: {count:,} of {counts[places[row]].sum():,}"

    def opens(row: int, column: int) -> str | None:
        cell = places[row], places[column]
        return anchor(*cell) if cell in opened else None

    shown = [[int(counts[row, column]) for column in places] for row in places]
    wrong = int(counts.sum() - counts.trace())
    figure = heat_map(
        "Confusion matrix", f"{wrong:,} of {int(counts.sum()):,} answers are wrong.", names, names, shown,
        row_label="right, by row", column_label="answered, by column", note=note, opens=opens,
    )  # fmt: skip
    caption = (
        "Click on a cell to see its examples; or press Tab, go there with the arrow keys and press Enter. The colour "
        "is by the share of the row."
    )
    blocks: list[Block] = []
    if len(places) < len(outcomes.names):
        blocks.append(Words(f"The {len(places)} of {len(outcomes.names)} classes with the most mistakes."))
    blocks.append(Drawn(figure, caption=caption))
    parts = [
        (row, column, Opening(anchor(row, column), _title(outcomes, row, column, int(counts[row, column]), len(rows)),
                              faces.shown(f"{outcomes.names[row]}, answered {outcomes.names[column]}", rows)))
        for (row, column), rows in opened.items()
    ]  # fmt: skip
    errors = [part for row, column, part in parts if row != column]
    hits = [part for row, column, part in parts if row == column]
    blocks += [Openings("Mistakes", errors)] if errors else []
    blocks += [Openings("Right answers, the least certain first", hits)] if hits else []
    return Section("confusion", "What was taken for what", blocks)


def anchor(row: int, column: int) -> str:
    """The id of what a cell opens. row, column: places of the right class and of the answer."""
    return f"cell-{row}-{column}"


def _title(outcomes: ClassOutcomes, row: int, column: int, count: int, shown: int) -> str:
    what = outcomes.names[row] if row == column else f"{outcomes.names[row]} taken for {outcomes.names[column]}"
    return f"{what}: {count:,}" + (f", {shown} shown" if shown < count else "")


def _most_mistaken(counts: np.ndarray) -> list[int]:
    """The classes to show, in their own order."""
    wrong = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    return sorted(np.argsort(-wrong, kind="stable")[:MOST_CLASSES].tolist())


def _by_mistakes(counts: np.ndarray) -> np.ndarray:
    """(M, 2) the cells that are not empty: first the mistakes, the most frequent first; then what is right."""
    rows, columns = np.nonzero(counts)
    order = np.lexsort((columns, rows, -counts[rows, columns], rows == columns))
    return np.stack([rows[order], columns[order]], axis=1)


def _examples(
    outcomes: ClassOutcomes, losses: np.ndarray, cells: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], list[int]]:
    """The rows of the examples that each cell opens: of all cells the first one, then the second ones, as long as there
    is room."""
    worst, found = np.lexsort((np.arange(len(losses)), -losses)), {}
    for row, column in cells:
        inside = worst[(outcomes.target[worst] == row) & (outcomes.prediction[worst] == column)]
        found[row, column] = inside[: OF_HITS if row == column else OF_ERRORS].tolist()
    kept: dict[tuple[int, int], list[int]] = {cell: [] for cell in found}
    left = MOST_SHOWN
    for turn in zip_longest(*found.values()):
        for cell, example in zip(found, turn, strict=True):
            if example is not None and left > 0:
                kept[cell].append(example)
                left -= 1
    return kept
