"""What judges trials while they are trained: the answers that a pruner gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

Costs = Mapping[int, Mapping[int, float]]
"""Of each trial, what it had reached by each epoch at which it was judged: its best value so far, less is better."""


class Judge(Protocol):
    """Judges trials by what all have reached so far. Every answer is a function of that alone."""

    def asks(self, trial: int, epoch: int) -> bool:
        """Whether the trial is judged after so many epochs."""

    def goes_on(self, trial: int, epoch: int, costs: Costs) -> bool:
        """Whether the trial trains on after the epoch; `costs` holds its own too."""

    def promoted(self, paused: Mapping[int, int], costs: Costs) -> int | None:
        """Of paused trials, by the epoch at which they were paused, the one that goes on after all; None for none."""
