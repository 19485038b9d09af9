"""`report.html`: what a training did and what it answers, in one file that opens anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dltrain.evidence.comparing import SHARE, Score
from dltrain.evidence.examples import WHERE
from dltrain.evidence.pages import render
from dltrain.evidence.report.answers import answered, least_sure, worst
from dltrain.evidence.report.blocks import Block, Card, Cards, Cell, Code, Grid, Section, Words
from dltrain.evidence.report.curves import Training, curves, learning_rate, times
from dltrain.evidence.report.faces import TINY, Faces, uri
from dltrain.evidence.report.slices import slices
from dltrain.tasks.metrics import Metric

TEMPLATE = Path(__file__).parent / "templates" / "report.html"
LOOKED = 2_000
"""Examples whose pictures are read for slices, at most."""
SMALL = 32
"""Pixels of a side that brightness is measured at."""


@dataclass(frozen=True)
class Result:
    """What was reached. name: what it is called. path: where it lies; empty for a mean. scores: by metric."""

    name: str
    path: str
    scores: Mapping[str, Score]


@dataclass(frozen=True)
class Story:
    """What there is to tell.

    title: of the page. where: the examples lie of which answers are shown, and what gave them. trainings: every run.
    results: first the one whose answers are shown. remarks: on results. comparisons: what is decided between sides, a
    sentence each. sides: their names. settings: the values of all sides by key, where they differ. faces: the examples
    of the first result. augmented: training images as they lie there, and as the network got them. samples: what a
    network made of nothing. plan, experiment: texts. environment: by name. decisions: (name, value, reason). repeat:
    commands. exact: whether they give the same bits. missing: what could not be shown, and why, a sentence each.
    """

    title: str
    split: str
    where: str
    words: str
    metrics: Sequence[Metric]
    trainings: Sequence[Training]
    results: Sequence[Result]
    faces: Faces
    remarks: Sequence[str] = ()
    comparisons: Sequence[str] = ()
    sides: Sequence[str] = ()
    settings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    augmented: Sequence[tuple[np.ndarray, np.ndarray]] = ()
    samples: Sequence[np.ndarray] = ()
    plan: str = ""
    experiment: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    decisions: Sequence[tuple[str, str, str]] = ()
    repeat: Sequence[str] = ()
    exact: bool = True
    missing: Sequence[str] = ()


def page(story: Story) -> str:
    """The page: HTML without references to anything outside of it. The same story gives the same page."""
    faces = story.faces
    sections = [
        _results(story),
        curves(story.trainings, story.metrics),
        learning_rate(story.trainings),
        times(story.trainings),
        worst(faces),
        least_sure(faces),
        *answered(faces.table.outcomes, faces),
        _slices(story),
        _augmented(story.augmented),
        _samples(story.samples),
        Section("plan", "Plan", [Code(story.plan)] if story.plan else []),
        _environment(story),
        _repeat(story),
    ]
    return render(
        TEMPLATE,
        story=story,
        summary=summary(story),
        sections=[section for section in sections if section.blocks],
    )


def summary(story: Story) -> str:
    """What the first result is, in a sentence."""
    scores, table = story.results[0].scores, story.faces.table
    right, where = table.outcomes.right, f"{len(table):,} {story.words} {story.where}"
    if SHARE in scores and right is not None:
        interval = scores[SHARE].interval
        reached = f"{scores[SHARE].value:.2%} (95 % interval {interval.low:.2%} to {interval.high:.2%})"
        return f"Right on {int(right.sum()):,} of {where}: {reached}."
    metric = next(metric for metric in story.metrics if metric.name in scores)
    score = scores[metric.name]
    return f"{metric.name} {score.value:{metric.format}} (95 % interval {_ends(score, metric)}) on {where}."


def _ends(score: Score, metric: Metric) -> str:
    low, high = score.interval.low, score.interval.high
    return f"{low:{metric.format}} to {high:{metric.format}}" if np.isfinite(low + high) else "-"


def _results(story: Story) -> Section:
    scores = [each.scores for each in story.results]
    metrics = [metric for metric in story.metrics if any(metric.name in each for each in scores)]
    rows = []
    for each in story.results:
        cells = [Cell(each.name), Cell(each.path)] if len(story.results) > 1 else [Cell(each.path)]
        for metric in metrics:
            score = each.scores.get(metric.name)
            cells += [Cell("-"), Cell("-")] if score is None else [
                Cell.of(score.value, metric.format), Cell(_ends(score, metric), score.interval.low)
            ]  # fmt: skip
        rows.append(cells)
    named = ["", "run"] if len(story.results) > 1 else ["run"]
    head = [*named, *(name for metric in metrics for name in (metric.name, "95 %"))]
    blocks: list[Block] = [Grid("Results", head, rows, frozenset(range(len(named), len(head))))]
    blocks += [Words(sentence) for sentence in (*story.remarks, *story.comparisons)]
    if story.settings:
        told = [[Cell(key), *map(Cell, values)] for key, values in story.settings.items()]
        blocks.append(Grid("Settings that differ", ["setting", *story.sides], told))
    return Section("results", f"Results on the {story.split} split", blocks)


def _slices(story: Story) -> Section:
    table, source = story.faces.table, story.faces.source
    if source is None:
        return Section("slices", "", [])
    rows = np.arange(len(table))
    facts: dict[str, Any] = dict(story.faces.facts)
    if story.faces.are_images:
        rows = np.unique(np.linspace(0, len(table) - 1, min(LOOKED, len(table))).astype(np.int64))
        places = table.index[rows]
        pictures = source.pictures(places, SMALL) or []
        facts = {**source.facts(places), "brightness": np.array([float(each.mean()) / 255 for each in pictures])}
    else:
        facts = {name: np.asarray(values)[table.index] for name, values in facts.items()}
    facts |= {name: np.asarray(values)[rows] for name, values in table.where.items() if name not in WHERE}
    return slices(table, facts, rows, story.metrics)


def _augmented(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Section:
    cards = [
        Card(row, [uri(before), uri(after)], max(after.shape[:2]) <= TINY, f"#{row + 1}", "")
        for row, (before, after) in enumerate(pairs)
    ]
    text = "Images of the first training batch: above as they lie there, below as the network got them."
    return Section("augmented", "Training images", [Words(text), Cards("Training images", cards)] if cards else [])


def _samples(samples: Sequence[np.ndarray]) -> Section:
    cards = [Card(row, [uri(each)], max(each.shape[:2]) <= TINY, "", "") for row, each in enumerate(samples)]
    return Section("samples", "Samples of nothing", [Cards("Samples", cards)] if cards else [])


def _environment(story: Story) -> Section:
    rows = [[Cell(name), Cell(value)] for name, value in story.environment.items()]
    blocks: list[Block] = [Grid("Environment", ["what", "value"], rows)] if rows else []
    if story.decisions:
        decided = [[Cell(each) for each in decision] for decision in story.decisions]
        blocks.append(Grid("Decisions", ["decided", "value", "why"], decided))
    return Section("environment", "Environment", blocks)


def _repeat(story: Story) -> Section:
    blocks: list[Block] = []
    if story.repeat:
        text = "The same experiment, seed, data, versions and machine give the same weights, bit for bit."
        if not story.exact:
            text = "`training.deterministic` is off: cuDNN picks kernels by time, and weights differ from run to run."
        blocks += [Words(text), Code("\n".join(story.repeat))]
    if story.experiment:
        blocks += [Words("The experiment, with all settings:"), Code(story.experiment)]
    return Section("repeat", "How to repeat this", blocks)
