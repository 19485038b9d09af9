"""The task `classification`, built: its losses, its sums over batches, and what logits mean. Imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dltrain.tasks.impl.base import Readings, SupervisedTask, free_name
from dltrain.tasks.impl.classification_report import ClassificationReport, decide
from dltrain.tasks.impl.losses import CrossEntropyLoss
from dltrain.tasks.impl.meters import Meter, wide_type
from dltrain.tasks.losses import Loss
from dltrain.tasks.outcomes import ClassOutcomes
from dltrain.tasks.outputs import Logits


class BuiltClassification(SupervisedTask):
    """A model's output is its logits (B, K). A target is a class (B,) int64, or a share of each (B, K)."""

    calibrates = True

    def __init__(
        self, loss: Loss, reported: Loss, classes: Sequence[str], device: torch.device, auxiliary: float = 0.0
    ) -> None:
        super().__init__(loss, reported, Logits(len(classes)), device, auxiliary)
        self.classes = list(classes)

    def scale(self, targets: Tensor, add: Callable[[Sequence[Tensor]], None]) -> Tensor | None:
        weights = self.loss.weights_of(targets) if isinstance(self.loss, CrossEntropyLoss) else None
        if weights is None:
            return None
        sums = torch.stack([weights.new_tensor(len(weights)), weights.sum()])
        add([sums])
        return sums[0] / sums[1]

    def meter(self) -> ClassificationMeter:
        return ClassificationMeter(self.device)

    def report(self) -> ClassificationReport:
        return ClassificationReport(self.classes, self.device)

    def combine(self, outputs: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
        """The logarithm of the mean of the probabilities."""
        return log_mean_probability(outputs, weights)

    def likelihood_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="none")

    def confidence(self, outputs: Tensor) -> Tensor:
        """The logarithm of the probability of the most probable class."""
        return outputs.log_softmax(1).amax(1)

    @property
    def columns(self) -> list[str]:
        """class, probability, and the probability of each class by its name, which is `probability of NAME` where that
        is the name of another column."""
        own = ["class", "probability"]
        taken = {"path", *own, *self.classes}
        names = [
            free_name(f"probability of {name}", taken) if name in ("path", *own) else name for name in self.classes
        ]  # fmt: skip
        return [*own, *names]

    def answers(self, outputs: Tensor, inputs: Tensor) -> list[dict[str, Any]]:
        probabilities = (outputs if outputs.dtype == torch.float64 else outputs.float()).softmax(1).tolist()
        return [
            {"class": self.classes[best], "probability": row[best],
             "probabilities": dict(zip(self.classes, row, strict=True))}
            for best, row in zip(decide(outputs).tolist(), probabilities, strict=True)
        ]  # fmt: skip

    def outcomes(self, outputs: Tensor, targets: Tensor) -> ClassOutcomes:
        probabilities = outputs.softmax(1, dtype=wide_type(outputs.device)).float()
        shown = (each.cpu().numpy() for each in (targets, decide(outputs), probabilities))
        return ClassOutcomes(self.classes, *shown)

    def said(self, outputs: Tensor, inputs: Tensor) -> dict[str, Tensor]:
        """probabilities (B, K), class (B,)."""
        return {"probabilities": outputs.softmax(1), "class": decide(outputs)}

    def readings(self, outputs: Tensor) -> Readings:
        """The logits, whose gradient does not fade where the network is sure."""
        return Readings(outputs, outputs.softmax(1, dtype=wide_type(outputs.device)), decide(outputs))


class ClassificationMeter(Meter):
    """The mean loss and accuracy of training batches. A mixed target (B, K) counts as right when its largest class is
    predicted."""

    kinds = MappingProxyType({"correct": torch.int64})

    def batch_sums(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        labels = targets.argmax(dim=2) if targets.ndim == 3 else targets
        return {"correct": (decide(outputs) == labels).sum(1)}

    def values(self, sums: Mapping[str, Any], examples: int) -> dict[str, float]:
        return {"accuracy": sums["correct"] / examples}


def log_mean_probability(logits: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """log sum_m w_m softmax(o_m) of several (B, K), on the device of the first; float64. By default the mean."""
    weights, device = weights or [1 / len(logits)] * len(logits), logits[0].device
    wide = [o.to(device).to(wide_type(device)) for o in logits]
    terms = [o.log_softmax(1) + math.log(w) for o, w in zip(wide, weights, strict=True)]
    return torch.stack(terms).logsumexp(0)
