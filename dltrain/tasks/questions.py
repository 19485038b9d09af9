"""The tasks of yes-or-no questions: `binary_classification`, one per example, and `multilabel`, one per label.

A network gives a number per question, whose sigmoid is the probability of yes; above a threshold the answer is yes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from dltrain.data.targets import Classes, Labels, TargetSpec
from dltrain.tasks.base import Task
from dltrain.tasks.guess import Guess
from dltrain.tasks.losses import BinaryCrossEntropy, Loss
from dltrain.tasks.metrics import Metric
from dltrain.tasks.outputs import Output, YesNoLogits

if TYPE_CHECKING:
    import numpy as np
    import torch

    from dltrain.tasks.impl.questions import BuiltBinary, BuiltMultilabel
    from dltrain.tasks.outcomes import BinaryOutcomes, LabelOutcomes

Threshold = Annotated[float, Field(gt=0, lt=1)] | Literal["auto"]
CHANCE = 2.0
"""Standard deviations within which a result may be chance."""


class Questions(Task):
    """A task whose network gives a number per yes-or-no question."""

    outputs: ClassVar[type[Output]] = YesNoLogits

    def chosen(self, *, validation: bool) -> dict[str, tuple[Any, str]]:
        threshold: Threshold = self.threshold  # type: ignore[attr-defined]
        if threshold != "auto":
            return {"threshold": (threshold, "set in the experiment")}
        if not validation:
            return {"threshold": (0.5, "there is no validation split to choose it on")}
        return {"threshold": ("best F1", "of the validation split, chosen anew whenever it is measured")}

    def default_loss(self) -> Loss:
        return BinaryCrossEntropy()

    def reported(self, loss: Loss, *, combined: bool) -> Loss:
        """The loss of splits that are measured. Of a mean of probabilities it is the cross-entropy, whatever was
        minimised."""
        reported = loss.evaluation()
        return self.default_loss() if combined or not issubclass(YesNoLogits, reported.taken) else reported


class BinaryClassification(Questions):
    """One of two classes, by one number: the probability of the second class, in the order of the data, which is called
    positive.

    precision, recall and f1 are those of the positive class at the threshold; roc_auc and average_precision need none,
    are exact and equal to scikit-learn's. Metrics of training batches are taken at 0.5.
    """

    targets: ClassVar[tuple[type[TargetSpec], ...]] = (Classes,)
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("loss", "min"),
        Metric("accuracy", "max", brief=".2%", tie_break="loss"),
        Metric("precision", "max", tie_break="loss"),
        Metric("recall", "max", tie_break="loss"),
        Metric("f1", "max", tie_break="loss"),
        Metric("roc_auc", "max", tie_break="loss", in_training=False),
        Metric("average_precision", "max", tie_break="loss", in_training=False),
    )
    ranks: ClassVar[str] = "roc_auc"
    name: Literal["binary_classification"] = "binary_classification"
    threshold: Threshold = "auto"
    """Probability of the positive class above which it is the answer. auto: the one with the highest F1 on the
    validation split, chosen anew whenever that is measured, kept in the checkpoint, and used and told by `eval` and
    `predict`; 0.5 without a validation split."""

    def misfit(self, target: TargetSpec) -> str | None:
        if len(target.names) == 2:
            return None
        return f"task `{self.name}` tells two classes apart, and the data has {len(target.names)}"

    def output(self, target: TargetSpec) -> YesNoLogits:
        return YesNoLogits(1)

    def build(
        self, loss: Loss, target: TargetSpec, device: torch.device, *, targets: np.ndarray | None = None,
        auxiliary: float = 0.0, combined: bool = False,
    ) -> BuiltBinary:  # fmt: skip
        from dltrain.tasks.impl.questions import BuiltBinary

        fitted = loss if targets is None else loss.fitted([int((targets == 1).sum())], len(targets))
        reported = self.reported(loss, combined=combined)
        return BuiltBinary(fitted, reported, target.names, device, auxiliary, self.threshold)

    @classmethod
    def outcomes(cls) -> type[BinaryOutcomes]:
        from dltrain.tasks.outcomes import BinaryOutcomes

        return BinaryOutcomes

    def guess(self, split: str, target: TargetSpec, targets: np.ndarray) -> Guess:
        return BinaryGuess.of(split, int((targets == 1).sum()), len(targets))


class Multilabel(Questions):
    """Any number of labels, each by a number of its own: the probability that an example has it.

    map is the mean over the labels of the average precision; labels that no example of a split has are left out of it,
    and counted. micro_f1 counts all answers together, macro_f1 is the mean over the labels that occur or are answered.
    Metrics of training batches are taken at 0.5.
    """

    targets: ClassVar[tuple[type[TargetSpec], ...]] = (Labels,)
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("loss", "min"),
        Metric("map", "max", tie_break="loss", in_training=False),
        Metric("macro_f1", "max", tie_break="loss"),
        Metric("micro_f1", "max", tie_break="loss"),
    )
    ranks: ClassVar[str] = "map"
    name: Literal["multilabel"] = "multilabel"
    threshold: Threshold = "auto"
    """Probability of a label above which an example has it. auto: for each label the one with the highest F1 on the
    validation split, chosen anew whenever that is measured, kept in the checkpoint, and used and told by `eval` and
    `predict`; 0.5 without a validation split, or where no example of it has the label."""

    def output(self, target: TargetSpec) -> YesNoLogits:
        return YesNoLogits(len(target.names))

    def build(
        self, loss: Loss, target: TargetSpec, device: torch.device, *, targets: np.ndarray | None = None,
        auxiliary: float = 0.0, combined: bool = False,
    ) -> BuiltMultilabel:  # fmt: skip
        from dltrain.tasks.impl.questions import BuiltMultilabel

        fitted = loss if targets is None else loss.fitted(targets.sum(0).tolist(), len(targets))
        reported = self.reported(loss, combined=combined)
        return BuiltMultilabel(fitted, reported, target.names, device, auxiliary, self.threshold)

    @classmethod
    def outcomes(cls) -> type[LabelOutcomes]:
        from dltrain.tasks.outcomes import LabelOutcomes

        return LabelOutcomes

    def guess(self, split: str, target: TargetSpec, targets: np.ndarray) -> Guess:
        return LabelGuess.of(split, targets.sum(0).tolist(), len(targets))


@dataclass(frozen=True)
class BinaryGuess(Guess):
    """The same for every example: its loss gives each the share of positive ones as probability. accuracy: of the more
    frequent class. auc: up to which the area under the ROC curve may be chance."""

    accuracy: float
    auc: float

    @classmethod
    def of(cls, split: str, positive: int, total: int) -> BinaryGuess:
        """positive: of so many examples in all."""
        share, negative = positive / max(total, 1), total - positive
        both = max(positive * negative, 1)
        auc = 0.5 + CHANCE * math.sqrt((total + 1) / (12 * both))  # Mann-Whitney
        return cls(split, total, _entropy(share), max(share, 1 - share), auc)

    def is_as_good_as(self, row: Mapping[str, float]) -> bool:
        """By the area under the ROC curve where it is measured, else by the accuracy."""
        if (auc := row.get(f"{self.split}/roc_auc")) is not None:
            return auc <= self.auc < 1
        accuracy = row.get(f"{self.split}/accuracy")
        most = self.accuracy + CHANCE * math.sqrt(self.accuracy * (1 - self.accuracy) / max(self.examples, 1))
        return accuracy is not None and accuracy <= most < 1

    def told(self, row: Mapping[str, float]) -> str:
        epoch = f"after epoch {int(row['epoch'])} is no better than"
        if (auc := row.get(f"{self.split}/roc_auc")) is not None:
            return f"a {self.split} ROC-AUC of {auc:.4f} {epoch} the same answer for all (0.5)"
        return f"a {self.split} accuracy of {row[f'{self.split}/accuracy']:.1%} {epoch} one class ({self.accuracy:.1%})"


@dataclass(frozen=True)
class LabelGuess(Guess):
    """The same for every example: its loss gives each label its share as probability. precision: the mean of these
    shares, the mean average precision of answers by chance."""

    precision: float

    @classmethod
    def of(cls, split: str, counts: Sequence[int], total: int) -> LabelGuess:
        """counts: examples that have each label, of so many in all."""
        shares = [count / max(total, 1) for count in counts]
        occur = [share for share in shares if share]
        precision = sum(occur) / len(occur) if occur else 0.0
        return cls(split, total, sum(map(_entropy, shares)) / max(len(shares), 1), precision)

    def is_as_good_as(self, row: Mapping[str, float]) -> bool:
        """By the mean average precision, which only splits that are measured have."""
        found = row.get(f"{self.split}/map")
        most = self.precision + CHANCE * math.sqrt(self.precision * (1 - self.precision) / max(self.examples, 1))
        return found is not None and found <= most < 1

    def told(self, row: Mapping[str, float]) -> str:
        measured = f"a {self.split} mAP of {row[f'{self.split}/map']:.4f} after epoch {int(row['epoch'])}"
        return f"{measured} is no better than the same answer for all ({self.precision:.4f})"


def _entropy(share: float) -> float:
    return -sum(p * math.log(p) for p in (share, 1 - share) if p > 0)
