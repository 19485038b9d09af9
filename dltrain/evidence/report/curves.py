"""How the trainings went: the metrics of each epoch, the learning rate, and what took the time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from dltrain.evidence.figures import SMALL, WIDE, Bar, Numbers, Point, Series, bars, chart, duration, number, of_series
from dltrain.evidence.report.blocks import Block, Drawn, Section, Several, Words
from dltrain.runs.recorders.csv import SMOOTHED, smooth
from dltrain.tasks.metrics import SPLITS, Metric

SHARE = 0.7
"""What the epochs before keep in a smoothed curve, where the training did not say it otherwise."""
THINNED = 250
"""Points of a curve, at most."""
MOST = 6
"""Metrics that are drawn."""


@dataclass(frozen=True)
class Training:
    """How a run went.

    name: what it is called on the page. rows: the epochs as metrics.csv has them. shares: of its
    time by what took it, from 0 to 1. seconds: of training. best_epoch: that of `best.pt`. smoothing: what the epochs
    before keep in a smoothed curve. group: of the runs that have one setting and one colour; empty where
    all have.
    """

    name: str
    rows: Sequence[Mapping[str, float]]
    shares: Mapping[str, float]
    seconds: float | None = None
    best_epoch: int | None = None
    smoothing: float = SHARE
    group: str = ""


def curves(trainings: Sequence[Training], metrics: Sequence[Metric]) -> Section:
    """A figure for each metric that an epoch measured, over all trainings."""
    blocks: list[Block] = []
    for metric in list(metrics)[:MOST]:
        tags = [f"{split}/{metric.name}" for split in SPLITS]
        if any(math.isfinite(row.get(tag, math.nan)) for each in trainings for row in each.rows for tag in tags):
            wide, narrow = (_metric(trainings, metric, size) for size in (WIDE, SMALL))
            blocks.append(Drawn(wide, narrow))
    if not blocks:
        return Section("curves", "Learning curves", [])
    ends = [each for each in trainings if each.best_epoch is not None]
    told = "; ".join(
        f"{f'{each.name}: ' if len(trainings) > 1 else ''}the best epoch is {each.best_epoch}" for each in ends
    )
    text = (
        "Thin lines are what each epoch measured, strong ones their exponential average, of which the first points are "
        "corrected for its start. Training is dashed, validation drawn through."
    )
    blocks.append(Words(text + (f" {told[0].upper()}{told[1:]}." if told else "")))
    return Section("curves", "Learning curves", blocks)


def _metric(trainings: Sequence[Training], metric: Metric, size: tuple[float, float]) -> Markup:
    series, values, groups = list[Series](), list[float](), _groups(trainings)
    for training in trainings:
        for split in SPLITS:
            tag = f"{split}/{metric.name}"
            raw = _points(training.rows, training.rows, tag)
            if not raw:
                continue
            mean = _points(
                training.rows, smooth(list(map(dict, training.rows)), [tag], training.smoothing), SMOOTHED + tag
            )
            colour = of_series(groups.index(training.group) if len(groups) > 1 else SPLITS.index(split))
            name = f"{training.group} {split}" if len(groups) > 1 else split
            values += [y for _, y in raw]
            which = f"{training.name} {split}" if len(trainings) > 1 else split
            text = f"{which}: {metric.name} {mean[-1][1]:{metric.format}} in the end, smoothed"
            series.append(Series("", [Point(*each) for each in raw], f"{colour} thin", None, "straight"))
            shown = [Point(*each) for each in mean]
            series.append(Series(name, shown, colour, None, "straight", split == "train", text))
    x = Numbers.of("epoch", [row["epoch"] for each in trainings for row in each.rows], whole=True, margin=0.02)
    y = Numbers.of(metric.name, values, log=None, fence="high" if metric.direction == "min" else "low")
    return chart(
        f"{metric.name} by epoch", f"{metric.name} of {len(trainings)} trainings by epoch.", x, y, series, size
    )


def _groups(trainings: Sequence[Training]) -> list[str]:
    return list(dict.fromkeys(each.group for each in trainings))


def _points(
    rows: Sequence[Mapping[str, float]], values: Sequence[Mapping[str, float]], tag: str
) -> list[tuple[float, float]]:
    """(epoch, value) where there is a finite one; of many, evenly chosen ones with both ends."""
    pairs = zip(rows, values, strict=True)
    found = [(row["epoch"], own[tag]) for row, own in pairs if math.isfinite(own.get(tag, math.nan))]
    if len(found) <= THINNED:
        return found
    return [found[round(index * (len(found) - 1) / (THINNED - 1))] for index in range(THINNED)]


def learning_rate(trainings: Sequence[Training]) -> Section:
    """The learning rate at the end of each epoch."""
    groups, there = _groups(trainings), list[tuple[Training, list[tuple[float, float]]]]()
    for each in trainings:
        points = _points(each.rows, each.rows, "lr")
        if points and (each.group, points) not in [(other.group, known) for other, known in there]:
            there.append((each, points))
    if not there:
        return Section("rate", "Learning rate", [])
    figures = []
    for size in (WIDE, SMALL):
        series = [
            Series(each.group, [Point(*p) for p in points], of_series(groups.index(each.group)), None, "straight",
                   False, f"{each.group or each.name}: from {number(points[0][1])} to {number(points[-1][1])}")
            for each, points in there
        ]  # fmt: skip
        x = Numbers.of("epoch", [x for _, points in there for x, _ in points], whole=True, margin=0.02)
        y = Numbers.of("learning rate", [y for _, points in there for _, y in points], log=None)
        figures.append(chart("Learning rate by epoch", "The learning rate after each epoch.", x, y, series, size))
    return Section("rate", "Learning rate", [Drawn(*figures)])


def times(trainings: Sequence[Training]) -> Section:
    """What took the time of each training."""
    figures = []
    for training in trainings:
        rows = [
            Bar(name.replace("_", " "), share, f"{share:.1%}", f"{name.replace('_', ' ')}: {share:.1%} of the time")
            for name, share in training.shares.items()
            if math.isfinite(share)
        ]
        if rows:
            took = f", {duration(training.seconds)} in all" if training.seconds else ""
            title = f"Time of {training.name}" if len(trainings) > 1 else "Time of the training"
            figures.append(Drawn(bars(title, ", ".join(f"{r.name} {r.text}" for r in rows), rows, 500.0, most=1.0),
                                 caption=title + took))  # fmt: skip
    return Section("time", "Time", [Several(figures)] if figures else [])


def shares_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The shares of a run's time, from what its result.json says."""
    shares = result.get("shares")
    found = shares.items() if isinstance(shares, dict) else ()
    return {str(name): float(value) for name, value in found if isinstance(value, (int, float))}
