"""What a search knows of its trials: what was drawn, and what each run has reached. Plain data, kept in the journal."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

State = Literal["running", "finished", "paused", "pruned", "failed"]
"""running: begun, and neither ended nor paused by the pruner. paused: it may go on. pruned: it has ended early."""


class RunRecord(BaseModel):
    """How a run of a trial stands.

    epochs: that are trained. metrics: of its best epoch, with what the training cost; None when it failed, and `reason`
    then says why. seconds: of training, over all its legs.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    state: Literal["finished", "paused", "pruned", "failed"]
    epochs: Annotated[int, Field(ge=0)]
    metrics: dict[str, Annotated[float, Field(allow_inf_nan=False)]] | None
    reason: str | None
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass
class TrialRecord:
    """A trial. index: its place in the search, from 0. number: the journal's. drawn: as it lies there. values: of the
    keys that it sets. round: of the narrowing, from 0."""

    index: int
    number: int
    drawn: dict[str, Any]
    values: dict[str, Any]
    round: int = 0
    runs: dict[int, RunRecord] = field(default_factory=dict)
    """By the number of its seed, from 0."""
    costs: dict[int, float] = field(default_factory=dict)
    """What its first run had reached by the epochs at which it was judged; less is better."""
    faults: list[str] = field(default_factory=list)
    """The machine's, in its runs."""

    def state(self, repeats: int) -> State:
        """How it stands. repeats: with how many seeds it is to be trained."""
        states = [run.state for run in self.runs.values()]
        early: tuple[State, ...] = ("failed", "pruned", "paused")
        for state in early:
            if state in states:
                return state
        return "finished" if len(states) >= repeats else "running"

    def ended(self, repeats: int) -> bool:
        """Whether nothing is left to train of it."""
        return self.state(repeats) in ("finished", "pruned", "failed")

    @property
    def reason(self) -> str | None:
        """Why it failed."""
        return next((run.reason for run in self.runs.values() if run.reason is not None), None)

    @property
    def metrics(self) -> dict[str, float] | None:
        """The mean of its runs, by tag; None before there is one, and when one has failed."""
        rows = [run.metrics for _, run in sorted(self.runs.items())]
        if not rows or self.reason is not None:
            return None
        told = [row for row in rows if row is not None]
        if len(told) == 1:
            return told[0]
        tags = [tag for tag in told[0] if all(tag in row for row in told)]
        return {tag: statistics.fmean(row[tag] for row in told) for tag in tags}

    @property
    def seconds(self) -> float:
        """Of training, all runs together."""
        return sum(run.seconds for run in self.runs.values())

    @property
    def epochs(self) -> int:
        """That its first run has trained."""
        return self.runs[0].epochs if 0 in self.runs else 0
