"""What `compare` found, as lines for a terminal, as JSON for programs, and as Markdown for a paper."""

from __future__ import annotations

import json
import math
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dltrain.evidence.comparing import Comparison, Score, shown
from dltrain.evidence.examples import ExampleTable
from dltrain.evidence.intervals import Interval
from dltrain.evidence.paired import Difference
from dltrain.experiment.experiment import Experiment
from dltrain.tasks.impl.tables import aligned
from dltrain.tasks.metrics import Metric

OF_THESE = "These are single trainings: whether the settings differ takes several seeds of each, in a folder a setting."
TOGETHER = "A folder is what its trainings answer together: whether the settings differ takes several seeds of each."
WIDEST = 40
"""Characters of a setting."""
Form = Literal["text", "json", "markdown"]


@dataclass(frozen=True)
class Side:
    """A run as it was measured. letter: what it is called. about: what the JSON of `eval` says. digest: what its
    examples and their order are known by. trainings: how many answer."""

    path: str
    letter: str
    experiment: Experiment
    about: Mapping[str, Any]
    table: ExampleTable
    digest: str
    trainings: int = 1

    @property
    def metrics(self) -> list[Metric]:
        """The task's, first the one that ranks."""
        return self.experiment.resolved_task.ranking()

    @property
    def words(self) -> str:
        """What its examples are called."""
        return f"{self.experiment.data.inputs.one}s"


@dataclass(frozen=True)
class Against:
    """A run against the first one. p: adjusted for as many runs as are compared. why: there is no comparison, if so."""

    side: Side
    comparison: Comparison | None
    p: float
    why: str

    def sentence(self, first: Side) -> str:
        """What is decided, or why nothing is."""
        if self.comparison is None:
            return self.why
        return self.comparison.sentence(first.letter, self.side.letter, first.words, self.p)


@dataclass(frozen=True)
class Compared:
    """Runs, each but the first against the first. scores: of each run by its letter, then by metric. settings: the
    values of all runs by dotted key, where they differ."""

    split: str
    sides: Sequence[Side]
    scores: Mapping[str, Mapping[str, Score]]
    against: Sequence[Against]
    settings: Mapping[str, Sequence[Any]]

    @property
    def metrics(self) -> list[Metric]:
        """Those that were compared."""
        return [metric for metric in self.sides[0].metrics if metric.name in self.scores[self.sides[0].letter]]

    @property
    def tests(self) -> list[tuple[Side, Comparison, float]]:
        """The paired comparisons, each with its adjusted p."""
        return [(each.side, each.comparison, each.p) for each in self.against if each.comparison is not None]


def letter_of(number: int) -> str:
    """What a run is called, by its place in the command."""
    return string.ascii_uppercase[number] if number < 26 else f"#{number + 1}"


def as_json(found: Compared) -> str:
    """One object."""
    runs = [
        {"path": side.path, "checkpoint": side.about.get("checkpoint"), "step": side.about.get("step"),
         "examples": len(side.table), "data_fingerprint": side.about.get("data_fingerprint"),
         "metrics": {name: {"value": number(score.value), **ends(score.interval), "method": score.method}
                     for name, score in found.scores[side.letter].items()}}
        for side in found.sides
    ]  # fmt: skip
    comparisons = [_comparison(found.sides[0], each) for each in found.against]
    whole = {"split": found.split, "runs": runs, "settings": found.settings, "comparisons": comparisons}
    return json.dumps(whole, ensure_ascii=False)


def as_text(found: Compared) -> str:
    """Lines for a terminal."""
    first, *_ = found.sides
    lines = [f"{s.letter}  {s.path}, {s.about.get('checkpoint')}, step {s.about.get('step')}" for s in found.sides]
    rows = [[key, *map(setting, values)] for key, values in found.settings.items()]
    titles = ["what differs", *(side.letter for side in found.sides)]
    lines += ["", *(aligned(titles, rows, widest=60) if rows else ["nothing differs in their settings"]), ""]
    cells = [
        [f"{s.letter} on {found.split}", *(_score(found.scores[s.letter][m.name], m) for m in found.metrics)]
        for s in found.sides
    ]
    for side, comparison, _ in found.tests:
        changes = [difference(comparison.differences[metric.name], metric) for metric in found.metrics]
        cells.append([f"{side.letter} - {first.letter}", *changes])
    lines += [*aligned(["95 % intervals", *(metric.name for metric in found.metrics)], cells), ""]
    lines += [f"{each.sentence(first)}." for each in found.against]
    if len(found.tests) > 1:
        lines.append(f"p is adjusted for {len(found.tests)} comparisons (Holm).")
    return "\n".join([*lines, OF_THESE if all(side.trainings == 1 for side in found.sides) else TOGETHER])


def as_markdown(found: Compared) -> str:
    """A table, a row a run, and what is decided below it."""
    first, *_ = found.sides
    tests = {side.letter: (comparison, p) for side, comparison, p in found.tests}
    decides = found.tests[0][1].metric if found.tests else None
    titles = ["run", *(metric.name for metric in found.metrics)]
    titles += [f"difference in {decides.name}", "test"] if decides is not None else []
    lines = [line(titles), line(["---"] * len(titles))]
    for side in found.sides:
        cells = [f"`{side.path}`", *(_score(found.scores[side.letter][m.name], m) for m in found.metrics)]
        if side.letter in tests and decides is not None:
            comparison, p = tests[side.letter]
            cells += [difference(comparison.differences[decides.name], decides), shown(p)]
        lines.append(line([*cells, *[""] * (len(titles) - len(cells))]))
    names = ", ".join(f"{side.letter} `{side.path}`" for side in found.sides)
    lines += ["", f"{names}; {found.split} split, {len(first.table):,} {first.words}; in brackets 95 % intervals."]
    return "\n".join([*lines, *(f"{each.sentence(first)}." for each in found.against)])


FORMS: dict[Form, Callable[[Compared], str]] = {"text": as_text, "json": as_json, "markdown": as_markdown}


def _comparison(first: Side, each: Against) -> dict[str, Any]:
    found = {"first": first.path, "second": each.side.path, "paired": each.comparison is not None}
    if each.comparison is None:
        return {**found, "why": each.why}
    test, comparison = each.comparison.mcnemar, each.comparison
    return {
        **found, "metric": comparison.metric.name, "p": number(comparison.p), "p_adjusted": number(each.p),
        "verdict": comparison.verdict(each.p), "sentence": each.sentence(first),
        "only_first_right": None if test is None else test.first_alone,
        "only_second_right": None if test is None else test.second_alone,
        "differences": {name: {"value": number(one.value), **ends(one.interval), "p": number(one.p)}
                        for name, one in comparison.differences.items()},
    }  # fmt: skip


def ends(interval: Interval) -> dict[str, float | None]:
    """An interval for JSON."""
    return {"low": number(interval.low), "high": number(interval.high)}


def number(value: float) -> float | None:
    """For JSON, which knows no infinity and nothing that is no number."""
    return value if math.isfinite(value) else None


def setting(value: Any) -> str:
    """A setting, cut to WIDEST characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def _score(score: Score, metric: Metric) -> str:
    low, high = (f"{value:{metric.format}}" for value in (score.interval.low, score.interval.high))
    return f"{score.value:{metric.format}} ({low} to {high})"


def difference(found: Difference, metric: Metric) -> str:
    """A difference and its interval."""
    value, low, high = (f"{v:+{metric.format}}" for v in (found.value, found.interval.low, found.interval.high))
    return f"{value} ({low} to {high})"


def line(cells: Sequence[str]) -> str:
    """A row of a table in Markdown."""
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
