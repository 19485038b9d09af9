"""The task `classification`: one class per example."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from dltrain.data.targets import Classes, TargetSpec
from dltrain.tasks.base import Task
from dltrain.tasks.guess import Guess
from dltrain.tasks.losses import CrossEntropy, Loss
from dltrain.tasks.metrics import Metric
from dltrain.tasks.outputs import Logits, Output

if TYPE_CHECKING:
    import numpy as np
    import torch

    from dltrain.tasks.impl.classification import BuiltClassification
    from dltrain.tasks.outcomes import ClassOutcomes


class Classification(Task):
    """One class per example, out of several: the one with the largest logit."""

    targets: ClassVar[tuple[type[TargetSpec], ...]] = (Classes,)
    outputs: ClassVar[type[Output]] = Logits
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("loss", "min"),
        Metric("accuracy", "max", brief=".2%", tie_break="loss"),
    )
    ranks: ClassVar[str] = "accuracy"
    name: Literal["classification"] = "classification"

    def default_loss(self) -> Loss:
        return CrossEntropy()

    def output(self, target: TargetSpec) -> Logits:
        return Logits(len(target.names))

    def build(
        self, loss: Loss, target: TargetSpec, device: torch.device, *, targets: np.ndarray | None = None,
        auxiliary: float = 0.0, combined: bool = False,
    ) -> BuiltClassification:  # fmt: skip
        """The loss of a mean of probabilities is the cross-entropy, whatever was minimised."""
        from dltrain.tasks.impl.classification import BuiltClassification

        fitted = loss if targets is None else loss.fitted(_counts(target, targets), len(targets))
        reported = CrossEntropy() if combined else loss.evaluation()
        return BuiltClassification(fitted, reported, target.names, device, auxiliary)

    @classmethod
    def outcomes(cls) -> type[ClassOutcomes]:
        from dltrain.tasks.outcomes import ClassOutcomes

        return ClassOutcomes

    def guess(self, split: str, target: TargetSpec, targets: np.ndarray) -> Guess:
        return ClassGuess.of(split, _counts(target, targets))


def _counts(target: TargetSpec, targets: np.ndarray) -> list[int]:
    """How many examples each class has."""
    import numpy as np

    counts: list[int] = np.bincount(targets, minlength=len(target.names)).tolist()
    return counts


@dataclass(frozen=True)
class ClassGuess(Guess):
    """Always the most frequent class of a split, and the loss of giving each class its share as its probability."""

    accuracy: float

    @classmethod
    def of(cls, split: str, counts: Sequence[int]) -> ClassGuess:
        """counts: examples of each class."""
        total = max(sum(counts), 1)
        shares = [count / total for count in counts if count]
        return cls(split, total, -sum(p * math.log(p) for p in shares), max(shares, default=0.0))

    def is_as_good_as(self, row: Mapping[str, float]) -> bool:
        """Within two standard deviations of chance. Of so few examples that any accuracy may be chance, nothing is
        said."""
        accuracy = row.get(f"{self.split}/accuracy")
        most = self.accuracy + 2 * math.sqrt(self.accuracy * (1 - self.accuracy) / self.examples)
        return accuracy is not None and accuracy <= most < 1

    def told(self, row: Mapping[str, float]) -> str:
        measured = f"a {self.split} accuracy of {row[f'{self.split}/accuracy']:.1%} after epoch {int(row['epoch'])}"
        return f"{measured} is no better than always giving one class ({self.accuracy:.1%})"
