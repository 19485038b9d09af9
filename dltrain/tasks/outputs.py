"""What a network must put out: a task asks for it, and losses say of which kind they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Output:
    """So many numbers for each example; a subclass says what they mean."""

    words: ClassVar[str] = "numbers"
    """For messages."""
    count: int


class Logits(Output):
    """One number per class, from which a softmax makes probabilities."""

    words = "a number per class"
