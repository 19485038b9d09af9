"""What `ablate` found of each part: whether it helps, as JSON, as a table for a terminal and as Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dltrain.commands.compare_forms import ends, line
from dltrain.commands.pairs import Pair, differences
from dltrain.evidence.sequential import Look, SequentialTest
from dltrain.experiment.ablation import Asked
from dltrain.tasks.impl.tables import aligned

BASE = "base"
"""The folder of the base's trainings."""
TITLES = ["part", "left out by", "it adds", "interval", "answer", "pairs", "time"]
ANSWERS = {"alike": "makes no difference", "undecided": "undecided"}
LONGEST = 48
"""Characters of a change in a table."""


@dataclass
class Question:
    """Whether a part helps. failed: why the training without it came to no end. pairs: base and without it."""

    name: str
    failed: str = ""
    pairs: list[Pair] = field(default_factory=list)


@dataclass
class Ablated:
    """An ablation as far as it has come. trained: the trainings of all rounds that were begun."""

    asked: Asked
    test: SequentialTest
    folder: Path
    questions: Sequence[Question]
    trained: int = 0

    def look(self, question: Question) -> Look:
        """What the pairs say of what the part adds: the base minus what lacks it."""
        return self.test.look(-differences(question.pairs))

    def answer(self, question: Question) -> str:
        """helps, harms, makes no difference, undecided, or training fails without it."""
        if question.failed:
            return "training fails without it"
        verdict = self.look(question).verdict
        return ANSWERS.get(verdict, "helps" if (verdict == "lower") == self.asked.watched.falls else "harms")

    def undecided(self) -> list[Question]:
        """The questions that go on."""
        return [each for each in self.questions if self.answer(each) == "undecided"]

    def begin_round(self) -> bool:
        """Whether there is something to decide, and budget for the base and all that is undecided; it is then taken."""
        undecided = len(self.undecided())
        if not undecided or self.trained + 1 + undecided > self.asked.ablation.budget:
            return False
        self.trained += 1 + undecided
        return True

    def in_short(self, question: Question) -> str:
        """A question after a pair, in a line."""
        look = self.look(question)
        added = f"{self.asked.watched.tag} {look.mean:+{self.asked.watched.metric.format}}"
        return f"it adds {added} in {look.pairs} pairs, p = {look.p:.2g}, {self.answer(question)}"

    @property
    def seconds(self) -> float:
        """What all trainings of pairs took, those of the base once."""
        base = {pair.seed: pair.seconds[0] for each in self.questions for pair in each.pairs}
        return math.fsum([*base.values(), *(pair.seconds[1] for each in self.questions for pair in each.pairs)])

    @property
    def sentence(self) -> str:
        """What it cost, and how sure it is."""
        ablation = self.asked.ablation
        return (
            f"{self.trained} of {ablation.budget} runs, {self.seconds:,.0f} s of training. Each answer is wrong with a "
            f"probability of {ablation.error:g} at most, and each interval holds with {1 - ablation.error:.0%}; of "
            f"{len(self.questions)} answers, one may well be."
        )

    def as_json(self) -> str:
        """One object."""
        return json.dumps(self.as_dict(), ensure_ascii=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain values; infinite ends of an interval are null."""
        ablation = self.asked.ablation
        return {
            "experiment": self.asked.base.name, "folder": str(self.folder), "metric": self.asked.watched.tag,
            "error": ablation.error, "margin": ablation.difference, "assumes": self.test.assumes,
            "parts": [self._part(each) for each in self.questions],
            "cost": {"runs": self.trained, "budget": ablation.budget, "seconds": round(self.seconds, 3)},
        }  # fmt: skip

    def _part(self, question: Question) -> dict[str, Any]:
        look, pairs = self.look(question), question.pairs
        return {
            "part": question.name, "change": self.asked.ablation.parts[question.name], "answer": self.answer(question),
            "adds": {"mean": look.mean if look.pairs else None, **ends(look.interval)}, "p": look.p,
            "pairs": [{"seed": pair.seed, "with": pair.values[0], "without": pair.values[1]} for pair in pairs],
            "seconds": round(math.fsum(pair.seconds[1] for pair in pairs), 3), "failed": question.failed,
        }  # fmt: skip

    def as_text(self) -> str:
        """A table for a terminal, and what it cost."""
        rows = [self._cells(each) for each in self.questions]
        return "\n".join([f"What each part adds to {self.asked.watched.tag}", "", *aligned(TITLES, rows, widest=60),
                          "", self.sentence])  # fmt: skip

    def as_markdown(self) -> str:
        """A page for a person."""
        rows = [line(self._cells(each)) for each in self.questions]
        told = [f"- without `{each.name}`: {each.failed}" for each in self.questions if each.failed]
        parts = [
            f"# What each part adds to {self.asked.watched.tag}",
            "\n".join([line(TITLES), line(["---"] * len(TITLES)), *rows]), self.sentence, *told,
            "The pairs of a part: `dltrain compare " + f"{self.folder / BASE} {self.folder}/PART`.",
        ]  # fmt: skip
        return "\n\n".join(parts) + "\n"

    def _cells(self, question: Question) -> list[str]:
        look, shown = self.look(question), self.asked.watched.metric.format
        adds, low, high = (f"{value:+{shown}}" for value in (look.mean, look.interval.low, look.interval.high))
        known = bool(question.pairs)
        seconds = math.fsum(pair.seconds[1] for pair in question.pairs)
        return [
            question.name, _in_words(self.asked.ablation.parts[question.name]), adds if known else "-",
            f"{low} to {high}" if known else "-", self.answer(question), str(look.pairs), f"{seconds:,.0f} s",
        ]  # fmt: skip


def _in_words(change: dict[str, Any]) -> str:
    """A change as overrides, of a choice its name alone, cut to LONGEST characters."""
    short = {key: value.get("name", value) if isinstance(value, dict) else value for key, value in change.items()}
    text = " ".join(f"{key}={json.dumps(value) if not isinstance(value, str) else value}"
                    for key, value in short.items())  # fmt: skip
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
