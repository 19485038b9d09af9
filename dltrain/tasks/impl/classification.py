"""What a model is trained for: its losses and its metrics. Imports torch: import it where a training is built.

Another task (regression, reconstruction) is another class with these methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dltrain.tasks.impl.losses import CrossEntropyLoss
from dltrain.tasks.impl.metrics import ClassificationReport, TrainingMetrics
from dltrain.tasks.losses import Loss


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

    def scale(self, targets: Tensor, add: Callable[[Sequence[Tensor]], None]) -> Tensor | None:
        """What makes a mean over the whole batch, in all its parts on all devices, the weighted mean: 1 / the mean of
        the examples' weights. None where they have none. add: replaces tensors by their sums over processes."""
        weights = self.loss.weights_of(targets) if isinstance(self.loss, CrossEntropyLoss) else None
        if weights is None:
            return None
        sums = torch.stack([weights.new_tensor(len(weights)), weights.sum()])
        add([sums])
        return sums[0] / sums[1]

    def losses(
        self, outputs: Tensor | tuple[Tensor, ...], targets: Tensor, scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The logits (B, K), their losses (B,), which are reported, and the sums (B,) that training minimises: those
        losses and the weighted losses of the auxiliary heads. scale: of the whole batch that these are of.
        """
        logits, *heads = (outputs,) if isinstance(outputs, Tensor) else outputs
        losses = total = self._loss(logits, targets, scale)
        for head in heads:
            total = total + self.auxiliary * self._loss(head, targets, scale)
        return logits, losses, total

    def _loss(self, logits: Tensor, targets: Tensor, scale: Tensor | None) -> Tensor:
        losses: Tensor = self.loss(logits, targets)
        return losses if scale is None else losses * scale

    def training_metrics(self) -> TrainingMetrics:
        """Sums over training batches."""
        return TrainingMetrics(self.device)

    def report(self) -> ClassificationReport:
        """Sums over a split to be evaluated."""
        return ClassificationReport(len(self.classes), self.device)
