"""What a search has to tell, as plain values: what its page is made of."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dltrain.evidence.figures import Numbers
from dltrain.search import Range

State = Literal["finished", "paused", "pruned", "failed", "running"]


@dataclass(frozen=True)
class Objective:
    """A metric that is searched for. tag: such as `validation/accuracy`. format: Python's format of its values."""

    tag: str
    direction: Literal["min", "max"]
    format: str = ".4f"

    @property
    def name(self) -> str:
        """The metric without its split: every metric of a search is of the validation split."""
        return self.tag.removeprefix("validation/")

    def cost(self, value: float) -> float:
        """The value, so that less is better."""
        return value if self.direction == "min" else -value

    def axis(self, values: Iterable[float], label: str | None = None) -> Numbers:
        """The axis of its values, by default with its name: values far worse than most do not stretch it."""
        name = self.name if label is None else label
        return Numbers.of(name, values, log=None, fence="high" if self.direction == "min" else "low")

    def text(self, value: float) -> str:
        """The value as it is told."""
        return f"{value:{self.format}}"


@dataclass(frozen=True)
class TrialStory:
    """A trial.

    index: from 0; it is told from 1, as its folder is. round: from 0. values: of the keys that it set; a conditional
    key may be missing. metrics: by tag, of its best epoch; empty where there is none. curve: (epoch, value) of the
    first objective. seconds: of training. reason: why it failed.
    """

    index: int
    values: Mapping[str, Any]
    state: State
    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: Sequence[tuple[float, float]] = ()
    round: int = 0
    seconds: float = 0.0
    reason: str | None = None

    @property
    def name(self) -> str:
        """`trial 12`."""
        return f"trial {self.index + 1}"


@dataclass(frozen=True)
class SearchStory:
    """A search, ended or parked.

    experiment: its name. objectives: the first one ranks, unless there are several. space: what could be tried, by key;
    the values of all trials lie in it.
    rounds: what each round could try, in their order; one without narrowing. best: indices of the best trials, best
    first; with several objectives those that no other trial beats in all. seconds: of the clock, of all its sessions.
    sampler_reason, budget: a sentence or a part of one. repeat: commands that do it again or go on. facts: further
    lines, such as seed, pruner, device, versions; by their name.
    """

    experiment: str
    objectives: Sequence[Objective]
    space: Mapping[str, Range]
    trials: Sequence[TrialStory]
    best: Sequence[int]
    sampler: str = "random"
    sampler_reason: str = ""
    rounds: Sequence[Mapping[str, Range]] = ()
    budget: str = ""
    seconds: float = 0.0
    repeat: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> list[TrialStory]:
        """The trials with a finite value of every objective, whatever their state, in their order."""
        tags = [objective.tag for objective in self.objectives]
        have = [t for t in self.trials if all(math.isfinite(t.metrics.get(tag, math.nan)) for tag in tags)]
        return sorted(have, key=lambda trial: trial.index)

    @property
    def measured(self) -> list[TrialStory]:
        """Those of them that came to an end."""
        return [trial for trial in self.shown if trial.state == "finished"]

    def trial(self, index: int) -> TrialStory:
        """The trial of that index. Raises KeyError when there is none."""
        return {trial.index: trial for trial in self.trials}[index]


def identity(choice: Any) -> str:
    """A choice as a text: of two that differ, the texts do. `true` is not 1, and the string "1" keeps its quotes."""
    text = json.dumps(choice, ensure_ascii=False, sort_keys=True, default=str)
    if not isinstance(choice, str):
        return text
    try:
        json.loads(choice)
    except ValueError:
        return choice
    return text


def told(value: Any) -> str:
    """A trial's value for people: four digits of a fraction, anything else as in JSON."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
