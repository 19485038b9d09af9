"""What a model that looks at no input reaches: a training that is no better has learnt nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Guess(ABC):
    """Of so many examples of a split. loss: that of the best constant answer."""

    split: str
    examples: int
    loss: float

    @abstractmethod
    def is_as_good_as(self, row: Mapping[str, float]) -> bool:
        """Whether the metrics of an epoch, by tag, are no better than this, but for chance. False where too little was
        measured to tell."""

    @abstractmethod
    def told(self, row: Mapping[str, float]) -> str:
        """The metrics of an epoch that are no better, in words: `... is no better than ...`."""
