"""What a network may add to the loss, or minimise in its place: an objective of its own. Imports torch."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class Objective(NamedTuple):
    """What a network puts out that brings an objective of its own, in training and in evaluation.

    Training minimises the mean over examples of the task's loss of `compared` and the targets, plus `terms`; or of
    `terms` alone. The same is reported as the loss, unless `instead` is.
    """

    outputs: Tensor
    """(B, ...): the answer."""
    terms: Tensor
    """(B,), at least float32: what each example adds to the loss."""
    alone: bool = False
    """Whether `terms` take the place of the task's loss."""
    summed: bool = False
    """Whether a task's loss that is a mean over the values of an example counts as their sum."""
    sampled: Tensor | None = None
    """(B, ...): what the loss is taken of where that is not the answer but a sample of it."""
    instead: Tensor | None = None
    """(B,): what is reported as the loss."""

    @property
    def compared(self) -> Tensor:
        """(B, ...): what the task's loss compares with the targets."""
        return self.outputs if self.sampled is None else self.sampled

    def answering(self, outputs: Tensor) -> Objective:
        """The same with another answer."""
        return self._replace(outputs=outputs)

    def minimised_of(self, losses: Tensor) -> Tensor:
        """(B,): what training minimises, of the task's losses (B,)."""
        return self.terms if self.alone else losses + self.terms

    def reported_of(self, losses: Tensor) -> Tensor:
        """(B,): what is reported as the loss, of the task's losses (B,)."""
        return self.minimised_of(losses) if self.instead is None else self.instead


def answer_of(outputs: Any) -> Tensor:
    """The answer (B, ...) in what a network puts out in evaluation."""
    answer: Tensor = outputs.outputs if isinstance(outputs, Objective) else outputs
    return answer
