"""How a metric fares in parts of a split: by image size, by brightness, by each column of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from dltrain.evidence.comparing import SHARE
from dltrain.evidence.examples import ExampleTable
from dltrain.evidence.figures import SMALL, Names, Numbers, Point, Series, chart, number
from dltrain.evidence.intervals import Interval, bootstrap, wilson
from dltrain.evidence.report.blocks import Block, Cell, Drawn, Grid, Section, Several, Words
from dltrain.tasks.metrics import Metric

PARTS = 4
"""Of the values of numbers: quarters."""
FEW = 6
"""Values up to which each is a part by itself."""
MOST_WORDS = 12
"""Words that are a part by themselves, the most frequent ones."""
DRAWN = 12
"""Figures, of those with the greatest differences."""
MOST_FACTS = 60
"""That are looked at: the first columns of a wide table."""
RESAMPLES = 500
"""Of an interval by the bootstrap: there are many of them."""


@dataclass(frozen=True)
class Part:
    """Some examples. fact: by what they were chosen. name: which they are. total: how many."""

    fact: str
    name: str
    total: int
    value: float
    interval: Interval


def slices(table: ExampleTable, facts: Mapping[str, Any], rows: np.ndarray, metrics: Sequence[Metric]) -> Section:
    """facts: what is known of the examples in `rows` of the table, by name: numbers or words, (n,) each."""
    measures = table.measures
    metric = next((metric for metric in metrics if metric.name == SHARE and SHARE in measures), None)
    metric = metric or next(metric for metric in metrics if metric.name in measures)
    by_fact = {
        fact: _parts(table, fact, np.asarray(values), rows, metric) for fact, values in [*facts.items()][:MOST_FACTS]
    }
    by_fact = {fact: parts for fact, parts in by_fact.items() if len(parts) > 1}
    if not by_fact:
        return Section("slices", "In parts of the split", [])
    drawn = sorted(by_fact, key=lambda fact: -_spread(by_fact[fact]))[:DRAWN]
    figures = [Drawn(_figure(fact, by_fact[fact], metric)) for fact in drawn]
    grid = [
        [Cell(part.fact), Cell(part.name), Cell(f"{part.total:,}", part.total), Cell.of(part.value, metric.format),
         Cell(f"{part.interval.low:{metric.format}} to {part.interval.high:{metric.format}}", part.interval.low)]
        for parts in by_fact.values() for part in parts
    ]  # fmt: skip
    head = ["by", "part", "examples", metric.name, "95 % interval"]
    text = f"{metric.name} in parts of the split, with 95 % intervals."
    text += " Many parts are looked at: one in twenty intervals misses by chance."
    if len(rows) < len(table):
        text += f" It is that of {len(rows):,} of {len(table):,} examples, evenly chosen."
    if len(facts) > MOST_FACTS:
        text += f" Looked at are the first {MOST_FACTS} of {len(facts)} columns."
    if len(drawn) < len(by_fact):
        text += f" Drawn are the {len(drawn)} of {len(by_fact)} with the greatest differences."
    blocks: list[Block] = [Words(text), Several(figures), Grid("Parts", head, grid, frozenset({2, 3, 4}))]
    return Section("slices", "In parts of the split", blocks)


def _parts(table: ExampleTable, fact: str, values: np.ndarray, rows: np.ndarray, metric: Metric) -> list[Part]:
    """The parts of a fact, in their order."""
    found = []
    for name, inside in divided(values):
        own = table.at(rows[inside])
        right = own.outcomes.right
        if metric.name == SHARE and right is not None:
            value, interval = float(right.mean()), wilson(int(right.sum()), len(own))
        else:
            drawn = bootstrap(own.measures[metric.name], len(own), resamples=RESAMPLES, method="percentile")
            value, interval = drawn.value, drawn.interval
        if np.isfinite(value):
            found.append(Part(fact, name, len(own), value, interval))
    return found


def divided(values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(N,) numbers or words -> named parts, each (N,) bool. Numbers are cut at their quartiles, or each is a part where
    they are few; of words the most frequent, and the others. What is missing is a part of its own."""
    if values.dtype.kind in "fiub":
        parts = _by_number(values.astype(np.float64))
    else:
        counts = Counter(word for word in values.tolist() if word != "")
        names = sorted(word for word, _ in counts.most_common(MOST_WORDS))
        parts = [(str(name), values == name) for name in names] if len(counts) < len(values) else []
        parts.append(("others", ~np.isin(values, ["", *names])))
        parts.append(("missing", values == ""))
        if not names or not counts or len(counts) == len(values):
            return []
    return [(name, inside) for name, inside in parts if inside.any()]


def _by_number(values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    known = values[np.isfinite(values)]
    different = np.unique(known)
    if len(different) <= FEW:
        parts = [(number(float(value)), values == value) for value in different]
    else:
        edges = np.unique(np.quantile(known, np.linspace(0, 1, PARTS + 1)))
        place = np.clip(np.searchsorted(edges, values, side="left"), 1, len(edges) - 1)
        there = np.isfinite(values)
        parts = [
            (f"{number(float(edges[i - 1]))} to {number(float(edges[i]))}", (place == i) & there)
            for i in range(1, len(edges))
        ]
    return [*parts, ("missing", ~np.isfinite(values))]


def _spread(parts: Sequence[Part]) -> float:
    values = [part.value for part in parts]
    return max(values) - min(values)


def _figure(fact: str, parts: Sequence[Part], metric: Metric) -> Markup:
    names = list(dict.fromkeys(part.name for part in parts))[::-1]
    ends = [end for part in parts for end in (part.interval.low, part.interval.high, part.value)]
    lines = [
        Series("", [Point(part.interval.low, part.name), Point(part.interval.high, part.name)], "s0", None, "straight")
        for part in parts
    ]
    points = [
        Point(part.value, part.name, f"{fact} {part.name}: {metric.text(part.value)} of {part.total:,}, from "
              f"{part.interval.low:{metric.format}} to {part.interval.high:{metric.format}}")
        for part in parts
    ]  # fmt: skip
    size = SMALL[0], 90.0 + 30 * len(names)
    about = f"{metric.name} of {len(parts)} parts."
    return chart(f"{metric.name} by {fact}", about, Numbers.of(metric.name, ends), Names(fact, names),
                 [*lines, Series("", points)], size)  # fmt: skip
