"""What `ask` found: the answer in a sentence, as JSON and as Markdown, and which examples changed sides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dltrain.commands.compare import side_of
from dltrain.commands.compare_forms import Side, line
from dltrain.console.display import Display
from dltrain.evidence.sequential import Look
from dltrain.experiment.claim import Sides

MOST = 50
"""Examples of each direction that are listed."""
YES = {"better": "yes", "worse": "no", "alike": "no", "undecided": "undecided"}


@dataclass(frozen=True)
class Answer:
    """verdict: what the changed side is. pairs: a row each. gained, lost: examples that most trainings of the changed
    side have right and most of the base wrong, and the other way round; why: they were not looked for, if so."""

    sides: Sides
    look: Look
    verdict: str
    assumes: str
    pairs: Sequence[Mapping[str, Any]]
    repeat: str
    gained: Sequence[Mapping[str, Any]] = field(default_factory=list)
    lost: Sequence[Mapping[str, Any]] = field(default_factory=list)
    why: str = ""

    @property
    def answer(self) -> str:
        """yes, no or undecided."""
        return YES[self.verdict]

    @property
    def seconds(self) -> float:
        """What all trainings took."""
        return math.fsum(pair["seconds"] for pair in self.pairs)

    @property
    def sentence(self) -> str:
        """The answer, with its interval and its cost."""
        shown, look, decide = self.sides.watched.metric.format, self.look, self.sides.claim.decide
        low, high = (f"{value:+{shown}}" for value in (look.interval.low, look.interval.high))
        what = f"{self.sides.watched.tag} differs by {look.mean:+{shown}} ({low} to {high})"
        found = {
            "better": "Yes, the change is better", "worse": "No, the change is worse",
            "alike": f"No, the sides differ by less than {decide.difference:g}",
            "undecided": "Undecided, and the budget is spent",
        }[self.verdict]  # fmt: skip
        cost = f"{look.pairs} pairs, {2 * look.pairs} of {decide.budget.runs} runs, {self.seconds:,.0f} s"
        return f"{found}: {what} after {cost}; p = {look.p:.2g}"


def changed_sides(answer: Answer, folder: Path, sides: Sides, device: str, display: Display) -> Answer:
    """The answer with the validation examples that changed sides, by the best checkpoints of all trainings."""
    if not all(each.data.has_validation for each in (sides.base, sides.changed)):
        return replace(answer, why="there is no validation split")
    right: list[list[np.ndarray]] = []
    tables: list[Side] = []
    for name in ("base", "changed"):
        paths = [folder / name / f"seed-{pair['seed']}" for pair in answer.pairs]
        found = [side_of(str(path), name, "validation", device, display) for path in paths]
        answers = [side.table.outcomes.right for side in found]
        if any(each is None for each in answers):
            return replace(answer, why="answers of this task are not just right or wrong")
        tables += found
        right.append([each for each in answers if each is not None])
    if len({side.digest for side in tables}) > 1:
        return replace(answer, why="the sides were measured on different examples")
    base, changed = (np.mean(each, axis=0) for each in right)
    table = tables[0].table
    columns = {name: values for name, values in table.columns().items() if name in (*table.where, "target")}

    def listed(places: np.ndarray) -> list[dict[str, Any]]:
        order = np.argsort(-np.abs(changed - base)[places], kind="stable")
        return [
            {"index": int(row), **{name: str(values[row]) for name, values in columns.items()},
             "base_right": float(base[row]), "changed_right": float(changed[row])}
            for row in places[order].tolist()
        ]  # fmt: skip

    gained = listed(np.flatnonzero((base < 0.5) & (changed > 0.5)))
    lost = listed(np.flatnonzero((base > 0.5) & (changed < 0.5)))
    return replace(answer, gained=gained, lost=lost)


def as_json(answer: Answer) -> dict[str, Any]:
    """Plain values; infinite ends of an interval become null when they are written."""
    sides, look, decide = answer.sides, answer.look, answer.sides.claim.decide
    return {
        "claim": sides.claim.claim, "answer": answer.answer, "verdict": answer.verdict, "sentence": answer.sentence,
        "change": sides.claim.change, "metric": sides.watched.tag, "error": decide.error, "margin": decide.difference,
        "test": {"assumes": answer.assumes, "evidence": look.evidence, "p": look.p},
        "difference": {
            "mean": look.mean, "low": look.interval.low, "high": look.interval.high, "level": look.interval.level,
        },
        "pairs": list(answer.pairs),
        "cost": {"runs": 2 * look.pairs, "budget": decide.budget.runs, "seconds": round(answer.seconds, 3)},
        "changed_sides": {
            "gained": len(answer.gained), "lost": len(answer.lost), "why": answer.why,
            "examples": [*answer.gained[:MOST], *answer.lost[:MOST]],
        },
        "repeat": answer.repeat,
    }  # fmt: skip


def as_markdown(answer: Answer) -> str:
    """A page for a person."""
    sides, decide, shown = answer.sides, answer.sides.claim.decide, answer.sides.watched.metric.format
    keys = ", ".join(f"`{key}: {value}`" for key, value in sides.claim.change.items())
    rows = [
        line([str(pair["seed"]), *(f"{pair[name]:{shown}}" for name in ("base", "changed")),
              f"{pair['difference']:+{shown}}"]) for pair in answer.pairs
    ]  # fmt: skip
    titles = ["seed", "base", "changed", "difference"]
    how = (
        f"Changed: {keys}. Both sides were trained with the same seeds, and compared by `{sides.watched.tag}` in the "
        f"best epoch. The test looks after every pair and decides wrongly with a probability of {decide.error:g} at "
        f"most; the interval holds at all times with {1 - decide.error:.0%}."
    )
    parts = [
        f"# {sides.claim.claim}", f"{answer.sentence}.", how, f"## {sides.watched.tag}",
        "\n".join([line(titles), line(["---"] * len(titles)), *rows]),
        "## Examples that changed sides", *_examples(answer), "## To repeat it", f"    {answer.repeat}",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _examples(answer: Answer) -> list[str]:
    """Paragraphs: a sentence, and a table where there is an example."""
    if answer.why:
        return [f"Not looked for: {answer.why}."]
    told = (
        f"Most trainings of the changed side have {len(answer.gained)} validation examples right that most of the base "
        f"have wrong, and {len(answer.lost)} the other way round."
    )
    examples = [*answer.gained[:MOST], *answer.lost[:MOST]]
    if not examples:
        return [told]
    names = list(examples[0])
    rows = [line([_cell(row[name]) for name in names]) for row in examples]
    return [told, "\n".join([line(names), line(["---"] * len(names)), *rows])]


def _cell(value: Any) -> str:
    return f"{value:.0%}" if isinstance(value, float) else str(value)
