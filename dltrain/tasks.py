"""What a model is trained for: its losses and its metrics. Imports torch: import it where a training is built.

Another task (regression, reconstruction) is another class with these methods.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dltrain.losses import Loss
from dltrain.metrics import ClassificationReport, TrainingMetrics


class Classification:
    """One label per image. A model's output is its logits (B, K).

    `loss` is what training minimises, `evaluation_loss` what is reported on validation and test data: both
    map (logits (B, K), targets) to (B,). In training, `views` rows in a row are views of one example.
    """

    def __init__(self, loss: Loss, classes: Sequence[str], device: torch.device) -> None:
        self.classes, self.device = list(classes), device
        self.views = loss.views
        self.loss = loss.build(len(classes)).to(device)
        self.evaluation_loss = loss.evaluation().build(len(classes)).to(device)

    @property
    def outputs(self) -> int:
        """How many numbers a model puts out per image."""
        return len(self.classes)

    def training_metrics(self) -> TrainingMetrics:
        """Sums over training batches."""
        return TrainingMetrics(self.device)

    def report(self) -> ClassificationReport:
        """Sums over a split to be evaluated."""
        return ClassificationReport(len(self.classes), self.device)
