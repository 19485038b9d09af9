"""Answers that are numbers: against the right ones, and how far off they are."""

from __future__ import annotations

import numpy as np

from dltrain.evidence.figures import SMALL, Numbers, Point, Series, chart, histogram, number
from dltrain.evidence.report.blocks import Block, Cell, Drawn, Grid, Section, Several, Words
from dltrain.evidence.report.faces import Faces
from dltrain.tasks.outcomes import NumberOutcomes

MOST_POINTS, LEAST_POINTS = 800, 150
"""Examples in the figures of all numbers together, and of one at least: of more, evenly chosen ones and those with the
largest errors."""
MOST_NUMBERS = 6
"""That are drawn, of those that a network answers."""


def answers(outcomes: NumberOutcomes, faces: Faces) -> list[Section]:
    """What was answered against what is right, and residuals, of each number."""
    blocks, rows = list[Block](), list[list[Cell]]()
    for place, name in enumerate(outcomes.names):
        target, answer = (each[:, place].astype(np.float64) for each in (outcomes.target, outcomes.prediction))
        errors = answer - target
        spread = float(((target - target.mean()) ** 2).sum())
        explained = 1 - float((errors**2).sum()) / spread if spread else float("nan")
        rows.append([
            Cell(name), *(Cell(number(value), value) for value in (
                float((errors**2).mean() ** 0.5), float(np.abs(errors).mean()), float(np.median(np.abs(errors))),
                float(errors.mean()))), Cell.of(explained),
        ])  # fmt: skip
        if place < MOST_NUMBERS:
            blocks.append(Several(_figures(name, target, answer, faces)))
    if len(outcomes.names) > MOST_NUMBERS:
        blocks.append(Words(f"Drawn are the first {MOST_NUMBERS} of {len(outcomes.names)} numbers."))
    head = ["number", "RMSE", "MAE", "median error", "mean residual", "R²"]
    table = Grid("Errors of each number", head, rows, frozenset(range(1, len(head))))
    return [Section("answers", "What was answered, and how far off", [table, *blocks])]


def _figures(name: str, target: np.ndarray, answer: np.ndarray, faces: Faces) -> list[Drawn]:
    errors = answer - target
    chosen = _chosen(errors, max(MOST_POINTS // len(faces.table.outcomes.columns()) * 2, LEAST_POINTS))

    def marks(x: np.ndarray, y: np.ndarray) -> Series:
        points = [
            Point(float(x[row]), float(y[row]), f"{faces.name(row)}: {faces.table.outcomes.sentence(row)}", f"x{row}")
            for row in chosen
        ]
        return Series("examples", points, "s0")

    both = [*target.tolist(), *answer.tolist()]
    axis = Numbers.of("right", both)
    line = Series("answered as it is", [Point(axis.low, axis.low), Point(axis.high, axis.high)], "plain", None,
                  "straight", True)  # fmt: skip
    against = chart(f"{name}: answered against right", f"{len(target)} examples.", axis, Numbers.of("answered", both),
                    [line, marks(target, answer)], SMALL)  # fmt: skip
    x, y = Numbers.of("answered", answer.tolist()), Numbers.of("answered - right", [0.0, *errors.tolist()])
    zero = Series("no error", [Point(x.low, 0.0), Point(x.high, 0.0)], "plain", None, "straight", True)
    left = chart(f"{name}: residuals", f"{len(target)} examples.", x, y, [zero, marks(answer, errors)], SMALL)
    spread = histogram(
        f"{name}: how large residuals are", f"{len(target)} examples.", "answered - right", errors.tolist()
    )
    some = (
        f"{len(chosen)} of {len(target):,} examples, the largest errors among them."
        if len(chosen) < len(target)
        else ""
    )
    return [Drawn(against, caption=some), Drawn(left), Drawn(spread)]


def _chosen(errors: np.ndarray, most: int) -> list[int]:
    if len(errors) <= most:
        return list(range(len(errors)))
    largest = np.argsort(-np.abs(errors), kind="stable")[: most // 8]
    even = np.linspace(0, len(errors) - 1, most - len(largest)).astype(np.int64)
    return sorted({*largest.tolist(), *even.tolist()})
