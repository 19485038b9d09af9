"""What a network must put out: a task asks for it, and losses say of which kind they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Output:
    """So many numbers for each example; a subclass says what they mean."""

    words: ClassVar[str] = "numbers"
    """For messages."""
    like_input: ClassVar[bool] = False
    """Whether it has the shape of the input; else it is a row of numbers."""
    count: int


class Logits(Output):
    """One number per class, from which a softmax makes probabilities."""

    words = "a number per class"


@dataclass(frozen=True)
class LikeInput(Output):
    """An output of the input's shape. `count` says nothing: the network knows what its inputs are."""

    words = "an output like the input"
    like_input = True
    count: int = 0
