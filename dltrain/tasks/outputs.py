"""What a network must put out: a task asks for it, and losses and networks say which kinds they take and give."""

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


class YesNoLogits(Output):
    """One number per yes-or-no question, from which a sigmoid makes the probability of yes."""

    words = "a number per yes-or-no question"


class Numbers(Output):
    """The numbers that are asked for, each in units in which the training part has mean 0 and deviation 1."""

    words = "a number per target"
