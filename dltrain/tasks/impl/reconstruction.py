"""The task `reconstruction`, built: its losses, its sums over batches, and errors of single examples. Imports torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from dltrain.tasks.impl.base import BuiltTask
from dltrain.tasks.impl.meters import Meter, Report, wide_type
from dltrain.tasks.losses import Loss
from dltrain.tasks.outcomes import InputOutcomes
from dltrain.tasks.outputs import LikeInput

SMALLEST, LARGEST = 1e-8, 1e4
"""Errors of single examples between which quantiles are told."""
BINS_PER_DECADE = 100
"""Of errors, so that a quantile is right to 2.3 %."""
QUANTILES = (0.5, 0.9, 0.99)
"""Of the errors of single examples, which reports tell."""


class BuiltReconstruction(BuiltTask):
    """A model's output has the shape of its input (B, ...), which is the target. Where the loss takes logits, so is the
    output: what it shows is their sigmoid."""

    learns_inputs = True

    def __init__(self, loss: Loss, device: torch.device) -> None:
        self.device, self.minimises = device, loss
        self.loss = loss.build(LikeInput()).to(device)
        self.of_logits, self.takes_mean = loss.of_logits, loss.is_mean

    def shown(self, outputs: Tensor) -> Tensor:
        """The reconstructions (B, ...) as values like the inputs', at least float32."""
        outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
        return outputs.sigmoid() if self.of_logits else outputs

    def own_losses(self, outputs: Any, targets: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        losses = self.reported_losses(outputs, targets)
        return outputs, losses, losses

    def reported_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses: Tensor = self.loss(outputs, targets)
        return losses

    def summands(self, targets: Tensor) -> int:
        return targets[0].numel() if self.takes_mean else 1

    def errors(self, outputs: Tensor, inputs: Tensor) -> Tensor:
        """The mean squared error of each example (B,)."""
        return (self.shown(outputs) - inputs).square().flatten(1).mean(1)

    def meter(self) -> ReconstructionMeter:
        return ReconstructionMeter(self)

    def report(self) -> ReconstructionReport:
        return ReconstructionReport(self)

    def combine(self, outputs: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
        """The mean of the reconstructions, as logits where the networks give those."""
        weights, device = weights or [1 / len(outputs)] * len(outputs), outputs[0].device
        wide = [each.to(device).to(wide_type(device)) for each in outputs]
        mean = torch.stack([w * self.shown(each) for each, w in zip(wide, weights, strict=True)]).sum(0)
        return mean.logit(eps=1e-7) if self.of_logits else mean

    @property
    def columns(self) -> list[str]:
        return ["mse"]

    def answers(self, outputs: Tensor, inputs: Tensor) -> list[dict[str, Any]]:
        """The error of each reconstruction: inputs that are unlike those of the training have large ones."""
        return [{"mse": error} for error in self.errors(outputs, inputs).tolist()]

    def outcomes(self, outputs: Tensor, targets: Tensor) -> InputOutcomes:
        return InputOutcomes(self.errors(outputs, targets).double().cpu().numpy())

    def said(self, outputs: Tensor, inputs: Tensor) -> dict[str, Tensor]:
        """reconstructions like the inputs (B, ...), and the error of each (B,)."""
        return {"reconstructions": self.shown(outputs), "mse": self.errors(outputs, inputs)}


class ReconstructionMeter(Meter):
    """The mean loss and squared error of training batches. Only the error of each example is kept until it is summed:
    the batches of a whole epoch's part would need much memory."""

    kinds = MappingProxyType({"squares": torch.float64})

    def __init__(self, task: BuiltReconstruction) -> None:
        self._task = task
        super().__init__(task.device)

    def kept(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        errors = self._task.errors(outputs, targets)
        return errors, errors

    def batch_sums(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"squares": outputs.sum(1, dtype=wide_type(self._device))}

    def values(self, sums: Mapping[str, Any], examples: int) -> dict[str, float]:
        return {"mse": sums["squares"] / examples}


class ReconstructionReport(Report):
    """What a split says about reconstructions: the loss, the mean squared error, and how errors are spread."""

    def __init__(self, task: BuiltReconstruction) -> None:
        self._task, device, wide = task, task.device, wide_type(task.device)
        decades = round(math.log10(LARGEST / SMALLEST))
        edges = torch.arange(decades * BINS_PER_DECADE + 1, dtype=torch.float64) / BINS_PER_DECADE
        self._edges = (SMALLEST * 10**edges).to(wide).to(device)
        self.counts = torch.zeros(len(edges) + 1, dtype=torch.int64, device=device)
        self.loss_sum, self.squares = (torch.zeros((), dtype=wide, device=device) for _ in range(2))

    @torch.no_grad()
    def update(self, outputs: Tensor, targets: Tensor, losses: Tensor, valid: int | None = None) -> None:
        errors = self._task.errors(outputs[:valid], targets[:valid]).to(self.squares.dtype)
        self.squares += errors.sum()
        self.loss_sum += losses[:valid].sum(dtype=self.loss_sum.dtype)
        self.counts.index_add_(0, torch.bucketize(errors, self._edges), torch.ones_like(errors, dtype=torch.int64))

    @property
    def sums(self) -> list[Tensor]:
        return [self.counts, self.loss_sum, self.squares]

    @property
    def examples(self) -> int:
        """How many examples were measured. Raises ValueError when there were none."""
        if count := int(self.counts.sum()):
            return count
        raise ValueError("no example was measured")

    def quantile(self, share: float) -> float:
        """The error that this share of the examples does not exceed, right to the width of a bin."""
        place = int((self.counts.cumsum(0) < share * self.examples).sum())
        return float(self._edges[min(place, len(self._edges) - 1)])

    def compute(self) -> dict[str, float]:
        return {"loss": float(self.loss_sum) / self.examples, "mse": float(self.squares) / self.examples}

    def to_dict(self) -> dict[str, Any]:
        quantiles = {f"{share:g}": self.quantile(share) for share in QUANTILES}
        return {"examples": self.examples, **self.compute(), "mse_quantiles": quantiles}

    def table(self) -> str:
        found = self.to_dict()
        lines = [f"{'examples':<14}{found['examples']:>12}", f"{'loss':<14}{found['loss']:>12.4f}"]
        lines += [f"{'mse':<14}{found['mse']:>12.4g}"]
        named = [(f"mse, {float(share):.0%} below", value) for share, value in found["mse_quantiles"].items()]
        return "\n".join([*lines, *(f"{name:<16}{value:>10.4g}" for name, value in named)])
