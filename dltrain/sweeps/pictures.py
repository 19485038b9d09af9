"""The figures of a search: each a function of its story."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

from markupsafe import Markup

from dltrain.evidence.figures import (
    SMALL,
    Axis,
    Bar,
    Line,
    Names,
    Numbers,
    Point,
    Series,
    Shape,
    Strip,
    bars,
    chart,
    cut,
    of_share,
    parallel,
)
from dltrain.search import Range
from dltrain.sweeps.importance import Importance
from dltrain.sweeps.story import Objective, SearchStory, State, TrialStory, identity, told

SHAPES: Mapping[State, Shape] = {"finished": "circle", "pruned": "diamond", "paused": "ring", "running": "ring"}
"""Of failed trials there is no value."""
THINNED = 60
"""Epochs at which a curve is drawn at most; the first and the last are among them."""


def of(trial: TrialStory) -> str:
    """What joins the marks of a trial over all figures."""
    return f"t{trial.index + 1}"


def history(story: SearchStory, objective: Objective, size: tuple[float, float]) -> Markup:
    """The value of each trial in their order, and the best so far."""
    y = objective.axis([trial.metrics[objective.tag] for trial in story.shown])
    last = max((trial.index + 1 for trial in story.trials), default=1)
    series = [_best_so_far(story.measured, objective, last + 0.5)]
    for state, shape in SHAPES.items():
        points = [_point(objective, t, t.index + 1.0) for t in story.shown if t.state == state]
        series.append(Series(state, points, "s0" if state == "finished" else "plain", shape))
    floor = y.low if objective.direction == "max" else y.high
    failed = [
        Point(t.index + 1.0, floor, f"{t.name}, failed: {cut(t.reason or '', 200)}", of(t))
        for t in story.trials
        if t.state == "failed"
    ]
    series.append(Series("failed", failed, "failed", "cross"))
    dividers = []
    for index in range(len(story.rounds) if len(story.rounds) > 1 else 0):
        begun = [trial.index for trial in story.trials if trial.round == index]
        dividers += [(min(begun) + 0.5, f"round {index + 1}")] if begun else []
    description = f"A mark for each of {len(story.shown) + len(failed)} trials; the line is the best so far."
    title, x = f"History of {objective.name}", Numbers("trial", 0.5, last + 0.5, whole=True)
    return chart(title, description, x, y, [each for each in series if each.points], size, dividers=dividers)


def _best_so_far(trials: Sequence[TrialStory], objective: Objective, end: float) -> Series:
    steps = list[Point]()
    for trial in trials:
        value = trial.metrics[objective.tag]
        if not steps or objective.cost(value) < objective.cost(steps[-1].y):
            steps.append(Point(trial.index + 1.0, value))
    if steps:
        steps.append(Point(end, steps[-1].y))
    return Series("best so far", steps, "best", None, "step-after")


def importances(found: Importance) -> Markup:
    """The share of the variance that each key explains."""
    rows = [
        Bar(key, share, f"{share:.0%}", f"{key} alone explains {share:.1%} of the variance")
        for key, share in found.shares.items()
    ]
    rest = max(1 - sum(found.shares.values()), 0.0)
    if len(rows) > 1 and rest >= 0.005:
        rows.append(Bar("keys together", rest, f"{rest:.0%}", f"{rest:.1%} lie in how keys act together", "plain"))
    for key, (share, count) in found.within.items():
        note = f"among the {count} trials that set {key}, it explains {share:.1%} of the variance"
        rows.append(Bar(key, share, f"{share:.0%} of {count} trials", note, "s5"))
    description = ", ".join(f"{row.name} {row.text}" for row in rows)
    return bars(f"Importance for {found.objective.name}", description, rows, 500.0, most=1.0)


def coordinates(story: SearchStory, objective: Objective, *, upright: bool) -> Markup:
    """A line for each trial with a result through its values and its metrics, the better ones above the others."""
    trials = _worst_first([trial for trial in story.shown if trial.state in ("finished", "pruned")], objective)
    axes = [_key_axis(story, key) for key in story.space]
    axes += [each.axis([trial.metrics[each.tag] for trial in trials]) for each in story.objectives]
    lines = [
        Line(
            [*(_on(story, key, trial) for key in story.space), *(trial.metrics[o.tag] for o in story.objectives)],
            _all_of(story, trial), of(trial), colour, trial.state != "finished",
        )
        for trial, colour in zip(trials, _colours(story, trials), strict=True)
    ]  # fmt: skip
    description = f"{len(lines)} trials through the axes {', '.join(axis.label for axis in axes)}."
    return parallel("Values and results of all trials", description, axes, lines, upright=upright)


def slices(story: SearchStory, objective: Objective, key: str) -> Markup:
    """The metric against one key; below it what each round could try."""
    trials = [t for t in story.shown if t.state in ("finished", "pruned") and key in t.values]
    x, y = _key_axis(story, key), objective.axis([trial.metrics[objective.tag] for trial in trials])
    many = len(story.rounds) > 1

    def points(state: State, round_: int | None = None) -> list[Point]:
        chosen = [t for t in trials if t.state == state and round_ in (None, t.round)]
        return [_point(objective, t, _on(story, key, t), f", {key} {cut(told(t.values[key]), 80)}") for t in chosen]

    colours = [of_share(0.3 + 0.69 * index / max(len(story.rounds) - 1, 1)) for index in range(len(story.rounds))]
    series = [Series("finished", points("finished"))]
    strips = []
    if many:
        series = [Series(f"round {i + 1}", points("finished", i), colour) for i, colour in enumerate(colours)]
        strips = [
            Strip(f"round {index + 1} tries {range_text(ranges[key])}", _pieces(x, ranges[key]), colours[index])
            for index, ranges in enumerate(story.rounds)
            if key in ranges
        ]
    series.append(Series("pruned", points("pruned"), "plain", "diamond"))
    description = f"{objective.name} of {len(trials)} trials by {key}."
    if strips:
        description += f" Bars below: {'; '.join(strip.name for strip in strips)}."
    drawn = [each for each in series if each.points]
    return chart(f"{objective.name} by {key}", description, x, y, drawn, SMALL, strips=strips)


def curves(story: SearchStory, size: tuple[float, float]) -> Markup:
    """The first objective of each trial over its epochs; where a pruned one ends there is a diamond."""
    objective = story.objectives[0]
    trials = _worst_first([trial for trial in story.trials if trial.curve], objective)
    x = Numbers.of("epoch", [epoch for t in trials for epoch, _ in t.curve], whole=True, margin=0.02)
    y = objective.axis([value for t in trials for _, value in t.curve])
    series = []
    for trial, colour in zip(trials, _colours(story, trials), strict=True):
        text = f"{trial.name}, {trial.state}: {objective.name} {objective.text(trial.curve[-1][1])}"
        text += f" at epoch {trial.curve[-1][0]:g}"
        points = [Point(*each) for each in thinned(trial.curve)]
        series.append(Series("", points, colour, None, "straight", trial.state != "finished", text, of(trial)))
    pruned = [
        Point(*t.curve[-1], f"{t.name} was pruned at epoch {t.curve[-1][0]:g}: {objective.text(t.curve[-1][1])}", of(t))
        for t in trials
        if t.state == "pruned"
    ]
    legend = [Series("trial", [], "r4", None, "straight"), Series("best", [], "best", None, "straight")]
    if pruned:
        legend.append(Series("pruned", pruned, "plain", "diamond"))
    description = f"{objective.name} of {len(trials)} trials by epoch; {len(pruned)} of them were pruned."
    return chart("Learning curves", description, x, y, [*series, *legend], size)


def thinned(curve: Sequence[tuple[float, float]], most: int = THINNED) -> list[tuple[float, float]]:
    """A curve at no more than `most` points, evenly chosen, with both ends."""
    if len(curve) <= most:
        return list(curve)
    return [curve[round(index * (len(curve) - 1) / (most - 1))] for index in range(most)]


def fronts(story: SearchStory) -> list[Markup]:
    """The trials by each two objectives; those that no other beats in all are joined."""
    return [_front(story, first, second) for first, second in combinations(story.objectives, 2)]


def _front(story: SearchStory, first: Objective, second: Objective) -> Markup:
    best, trials = set(front(story)), story.measured

    def points(chosen: Callable[[TrialStory], bool]) -> list[Point]:
        made = []
        for t in sorted(filter(chosen, trials), key=lambda t: t.metrics[first.tag]):
            values = ", ".join(f"{o.name} {o.text(t.metrics[o.tag])}" for o in story.objectives)
            made.append(Point(t.metrics[first.tag], t.metrics[second.tag], f"{t.name}: {values}", of(t)))
        return made

    x, y = (
        o.axis([t.metrics[o.tag] for t in trials], f"{o.name} ({'less' if o.direction == 'min' else 'more'} is better)")
        for o in (first, second)
    )
    front_of_two = Series("Pareto front", points(lambda t: t.index in best), "best", "circle",
                          "step-after" if first.direction == "min" else "step-before")  # fmt: skip
    if len(story.objectives) > 2:  # in these two alone, trials of the front can be beaten
        front_of_two = Series(front_of_two.name, front_of_two.points, "best")
    series = [Series("beaten by another", points(lambda t: t.index not in best), "pale"), front_of_two]
    description = f"{len(best)} of {len(trials)} trials are beaten by no other in all objectives."
    return chart(f"{second.name} against {first.name}", description, x, y, series, (640.0, 400.0))


def front(story: SearchStory) -> list[int]:
    """The trials that no other is at least as good as in all objectives and better than in one (Pareto)."""
    costs = {t.index: tuple(o.cost(t.metrics[o.tag]) for o in story.objectives) for t in story.measured}

    def beaten(mine: tuple[float, ...]) -> bool:
        return any(other != mine and all(a <= b for a, b in zip(other, mine, strict=True)) for other in costs.values())

    return [index for index, cost in costs.items() if not beaten(cost)]


def range_text(range_: Range) -> str:
    """A range for people: `0.001 to 1, log`, or its choices."""
    if range_.choices is not None:
        return ", ".join(cut(told(choice), 30) for choice in range_.choices)
    low, high = range_.bounds()
    further = ", log" if range_.log else "" if range_.step is None else f", step {told(range_.step)}"
    return f"{told(low)} to {told(high)}{further}"


def _key_axis(story: SearchStory, key: str) -> Axis:
    """The axis of a key: its whole range, or its choices."""
    range_ = story.space[key]
    if range_.choices is not None:
        return Names(key, [identity(choice) for choice in range_.choices])
    low, high = range_.bounds()
    return Numbers(key, low, high, range_.log, range_.is_integer)


def _on(story: SearchStory, key: str, trial: TrialStory) -> Any:
    """A trial's value as its axis takes it; None: the trial does not set the key."""
    if key not in trial.values:
        return None
    value = trial.values[key]
    return identity(value) if story.space[key].choices is not None else value


def _pieces(axis: Axis, range_: Range) -> list[tuple[float, float]]:
    """Where a range lies on an axis: one piece, or one for each choice."""
    if range_.choices is not None and isinstance(axis, Names):
        places = [axis.place(identity(choice)) for choice in range_.choices]
        return [(place - 0.48 / len(axis.names), place + 0.48 / len(axis.names)) for place in places]
    low, high = range_.bounds()
    return [(axis.place(low), axis.place(high))]


def _point(objective: Objective, trial: TrialStory, x: Any, more: str = "") -> Point:
    value = trial.metrics[objective.tag]
    return Point(x, value, f"{trial.name}, {trial.state}: {objective.name} {objective.text(value)}{more}", of(trial))


def _all_of(story: SearchStory, trial: TrialStory) -> str:
    """Number, state, metrics and values of a trial, a line each."""
    round_ = f", round {trial.round + 1}" if len(story.rounds) > 1 else ""
    metrics = [f"{o.name} {o.text(trial.metrics[o.tag])}" for o in story.objectives]
    values = [f"{key} {cut(told(value), 60)}" for key, value in trial.values.items()]
    return "\n".join([f"{trial.name}, {trial.state}{round_}", *metrics, *values])


def _worst_first(trials: Sequence[TrialStory], objective: Objective) -> list[TrialStory]:
    """What is drawn last lies above: trials without a result come first, then pruned ones, the best one last."""

    def order(trial: TrialStory) -> tuple[bool, float]:
        value = trial.metrics.get(objective.tag, math.nan)
        return trial.state == "finished", -objective.cost(value) if math.isfinite(value) else -math.inf

    return sorted(trials, key=order)


def _colours(story: SearchStory, trials: Sequence[TrialStory]) -> list[str]:
    """A colour for each of the trials, which come worst first: by rank, so that each colour has as many."""
    best = story.best if len(story.objectives) > 1 else story.best[:1]
    return ["best" if t.index in best else of_share(rank / max(len(trials), 1)) for rank, t in enumerate(trials)]
