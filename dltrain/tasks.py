"""What a model is trained for: its losses and its metrics. Imports torch: import it where a training is built.

Another task (regression, reconstruction) is another class with these methods.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dltrain.losses import Loss
from dltrain.metrics import ClassificationReport, TrainingMetrics


class Classification:
    """One label per image. A model's output is its logits (B, K); in training, one with auxiliary heads puts out a
    tuple of its logits and those of each head.

    `loss` is what training minimises, `evaluation_loss` what is reported on validation and test data (`reported`, or
    what belongs to the loss): both map (logits (B, K), targets) to (B,). `auxiliary` is the weight of the loss of each
    auxiliary head. In training, `views` rows in a row are views of one example.
    """

    def __init__(
        self, loss: Loss, classes: Sequence[str], device: torch.device, auxiliary: float = 0.0,
        reported: Loss | None = None,
    ) -> None:  # fmt: skip
        self.auxiliary = auxiliary
        self.classes, self.device = list(classes), device
        self.views = loss.views
        self.loss = loss.build(len(classes)).to(device)
        self.evaluation_loss = (reported or loss.evaluation()).build(len(classes)).to(device)

    @property
    def outputs(self) -> int:
        """How many numbers a model puts out per image."""
        return len(self.classes)

    def losses(self, outputs: Tensor | tuple[Tensor, ...], targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The logits (B, K), their losses (B,), which are reported, and the sums (B,) that training minimises: those
        losses and the weighted losses of the auxiliary heads.
        """
        if isinstance(outputs, Tensor):
            losses: Tensor = self.loss(outputs, targets)
            return outputs, losses, losses
        logits, *heads = outputs
        losses = total = self.loss(logits, targets)
        for head in heads:
            total = total + self.auxiliary * self.loss(head, targets)
        return logits, losses, total

    def training_metrics(self) -> TrainingMetrics:
        """Sums over training batches."""
        return TrainingMetrics(self.device)

    def report(self) -> ClassificationReport:
        """Sums over a split to be evaluated."""
        return ClassificationReport(len(self.classes), self.device)
