"""How well classes or labels are told from the others: by class, at every threshold, and as sure as they are right."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from dltrain.evidence.figures import SMALL, Numbers, Point, Series, chart, histogram, of_series
from dltrain.evidence.intervals import wilson
from dltrain.evidence.report.blocks import Block, Cell, Drawn, Grid, Section, Several, Words
from dltrain.evidence.report.numbers import BINS, Rates, by_class, rates, reliability

DRAWN = 8
"""Curves of a figure, at most: as many as there are colours."""
THINNED = 200
"""Points of a curve, at most."""


def table(names: Sequence[str], truth: np.ndarray, answers: np.ndarray, curves: Sequence[Rates | None]) -> Section:
    """A row for each class. truth, answers: (N, K) bool. curves: of each class, where it has some."""
    found, rows = by_class(truth, answers), []
    for place, name in enumerate(names):
        support, answered, right = (int(each[place]) for each in (found.support, found.answered, found.right))
        curve = curves[place]
        rows.append([
            Cell(name), Cell(f"{support:,}", support), *_with_interval(right, answered),
            *_with_interval(right, support), Cell.of(float(found.f1[place])),
            Cell.of(math.nan if curve is None else curve.roc_auc),
            Cell.of(math.nan if curve is None else curve.average_precision),
        ])  # fmt: skip
    head = ["class", "support", "precision", "95 %", "recall", "95 %", "F1", "ROC AUC", "average precision"]
    text = (
        "Precision: how many of the answers are right. Recall: how many of the class are found. Intervals are Wilson's."
    )
    return Section("classes", "Each class", [Grid("Classes", head, rows, frozenset(range(1, len(head)))), Words(text)])


def _with_interval(right: int, total: int) -> tuple[Cell, Cell]:
    if not total:
        return Cell("-"), Cell("")
    interval = wilson(right, total)
    return Cell.of(right / total), Cell(f"{interval.low:.3f} to {interval.high:.3f}", interval.low)


def all_rates(probabilities: np.ndarray, truth: np.ndarray) -> list[Rates | None]:
    """Of each class against the others; None where there are not both. probabilities: (N, K). truth: (N, K) bool."""
    return [
        rates(scores.astype(np.float64), own) if own.any() and not own.all() else None
        for scores, own in zip(probabilities.T, truth.T, strict=True)
    ]


def thresholds(names: Sequence[str], curves: Sequence[Rates | None]) -> Section:
    """ROC and precision-recall curves of the classes; of many, those that are told apart the worst."""
    there = [(name, curve) for name, curve in zip(names, curves, strict=True) if curve is not None]
    if not there:
        return Section("thresholds", "At every threshold", [])
    by_area = sorted(there, key=lambda each: each[1].roc_auc)[:DRAWN]
    by_precision = sorted(there, key=lambda each: each[1].average_precision)[:DRAWN]
    roc = [(name, each.false, each.found, f"AUC {each.roc_auc:.4f}") for name, each in by_area]
    precision = [
        (name, each.found, each.precision, f"average precision {each.average_precision:.4f}")
        for name, each in by_precision
    ]
    diagonal = Series("chance", [Point(0.0, 0.0), Point(1.0, 1.0)], "plain", None, "straight", True)
    axes = ("false positive rate", "true positive rate"), ("recall", "precision")
    figures = [
        _curves("ROC", "How many are found, against how many others are taken for them.", axes[0], roc, [diagonal]),
        _curves("Precision and recall", "How many answers are right, against how many are found.", axes[1], precision),
    ]
    blocks: list[Block] = [Several([Drawn(figure) for figure in figures])]
    if len(there) > DRAWN:
        blocks.append(Words(f"Each class against the others; drawn are the {DRAWN} with the smallest area."))
    elif len(there) > 1:
        blocks.append(Words("Each class against all others."))
    return Section("thresholds", "At every threshold", blocks)


def _curves(
    title: str, about: str, axes: tuple[str, str], curves: Sequence[tuple[str, np.ndarray, np.ndarray, str]],
    others: Sequence[Series] = (),
) -> Markup:  # fmt: skip
    drawn = [
        Series(name if len(curves) > 1 else "", _thinned(x, y), of_series(place), None, "straight",
               text=f"{name}: {words}")
        for place, (name, x, y, words) in enumerate(curves)
    ]  # fmt: skip
    x, y = (Numbers(label, -0.02, 1.02) for label in axes)
    return chart(title, about, x, y, [*others, *drawn], SMALL)


def _thinned(x: np.ndarray, y: np.ndarray) -> list[Point]:
    """Points of a curve without those on a straight line between their neighbours; of many, some."""
    turns = [0, *(i for i in range(1, len(x) - 1) if not _straight(x, y, i)), len(x) - 1]
    if len(turns) > THINNED:
        turns = [turns[round(k * (len(turns) - 1) / (THINNED - 1))] for k in range(THINNED)]
    return [Point(float(x[i]), float(y[i])) for i in turns]


def _straight(x: np.ndarray, y: np.ndarray, i: int) -> bool:
    return bool((x[i - 1] == x[i] == x[i + 1]) or (y[i - 1] == y[i] == y[i + 1]))


def calibration(sureness: np.ndarray, right: np.ndarray, what: str) -> Section:
    """The reliability diagram. sureness: (N,) probabilities. right: (N,) bool. what: these are probabilities of."""
    found = reliability(sureness, right)
    bins = [each for each in zip(found.sure.tolist(), found.right.tolist(), found.total.tolist()) if each[2]]
    points = [
        Point(sure, hits / total, f"held to be {sure:.1%} probable, right {hits / total:.1%}: {hits:,} of {total:,}")
        for sure, hits, total in bins
    ]
    intervals = [(sure, wilson(hits, total)) for sure, hits, total in bins]
    ends = [
        Series("", [Point(sure, interval.low), Point(sure, interval.high)], "s0", None, "straight")
        for sure, interval in intervals
    ]
    ideal = Series("as sure as right", [Point(0.0, 0.0), Point(1.0, 1.0)], "plain", None, "straight", True)
    x, y = Numbers("probability", -0.02, 1.02), Numbers("share that is right", -0.02, 1.02)
    series = [ideal, *ends, Series("bins", points)]
    figure = chart("Reliability diagram", f"{what}: {len(points)} bins.", x, y, series, SMALL)
    often = histogram("How often which probability", f"{what}.", "probability", sureness.tolist(), bins=BINS)
    text = (
        f"Expected calibration error {found.error:.4f}: {what} differ by so much, on average, from how often they are "
        f"right ({BINS} bins of one width; Guo et al. 2017). Bars are 95 % intervals (Wilson)."
    )
    return Section("calibration", "As sure as right?", [Words(text), Several([Drawn(figure), Drawn(often)])])
