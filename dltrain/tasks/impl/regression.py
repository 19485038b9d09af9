"""The task `regression`, built: numbers in standard deviations of the training part, and back. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dltrain.data.targets import Real
from dltrain.tasks.impl.base import Readings, SupervisedTask, free_name
from dltrain.tasks.impl.meters import Meter, wide_type
from dltrain.tasks.impl.regression_report import RegressionReport
from dltrain.tasks.losses import Loss
from dltrain.tasks.outcomes import NumberOutcomes
from dltrain.tasks.outputs import Numbers


class Scale:
    """The units of the targets: value = output * std + mean, for each of n numbers."""

    def __init__(self, target: Real, device: torch.device) -> None:
        """target: as the training part fitted it; otherwise outputs are in the units of the targets."""
        size, wide = len(target.names), wide_type(device)
        self.mean = torch.tensor(list(target.mean) or [0.0] * size, dtype=wide, device=device)
        self.std = torch.tensor(list(target.std) or [1.0] * size, dtype=wide, device=device)

    def standardised(self, targets: Tensor) -> Tensor:
        """Targets (..., n) in standard deviations from the mean, float32."""
        return ((targets - self.mean) / self.std).float()

    def values(self, outputs: Tensor) -> Tensor:
        """Outputs (..., n) in the units of the targets, float64 where there is such."""
        return outputs.to(self.mean.dtype) * self.std + self.mean


class BuiltRegression(SupervisedTask):
    """A model's output (B, n) are numbers in standard deviations; a target (B, n) has them in its own units."""

    def __init__(self, loss: Loss, reported: Loss, target: Real, device: torch.device, auxiliary: float = 0.0) -> None:
        super().__init__(loss, reported, Numbers(len(target.names)), device, auxiliary)
        self.names, self.units = list(target.names), Scale(target, device)

    def compared(self, targets: Tensor) -> Tensor:
        return self.units.standardised(targets)

    def meter(self) -> RegressionMeter:
        return RegressionMeter(self.units, self.device)

    def report(self) -> RegressionReport:
        return RegressionReport(self.names, self.units.mean, self.units.std)

    def combine(self, outputs: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
        """Their weighted mean, in float64 where there is such."""
        weights, device = weights or [1 / len(outputs)] * len(outputs), outputs[0].device
        terms = [w * o.to(device).to(wide_type(device)) for o, w in zip(outputs, weights, strict=True)]
        return torch.stack(terms).sum(0)

    @property
    def columns(self) -> list[str]:
        """The names of the numbers."""
        taken = {"path"}
        return [free_name(name, taken) for name in self.names]

    def answers(self, outputs: Tensor, inputs: Tensor) -> list[dict[str, Any]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.units.values(outputs).tolist()]

    def outcomes(self, outputs: Tensor, targets: Tensor) -> NumberOutcomes:
        shown = (each.cpu().numpy() for each in (targets, self.units.values(outputs)))
        return NumberOutcomes(self.names, *shown)

    def said(self, outputs: Tensor, inputs: Tensor) -> dict[str, Tensor]:
        """values (B, n), in the units of the targets."""
        return {"values": self.units.values(outputs)}

    def readings(self, outputs: Tensor) -> Readings:
        """Of each number, in the units of the targets; the score is how far it is from the training mean, and the
        answer is the first number."""
        first = torch.zeros(len(outputs), dtype=torch.int64, device=outputs.device)
        return Readings(outputs.abs(), self.units.values(outputs), first, are_probabilities=False)


class RegressionMeter(Meter):
    """The mean loss of training batches, and the errors in the units of the targets, those that are mixed included."""

    def __init__(self, units: Scale, device: torch.device) -> None:
        self.units, self.shape = units, tuple(units.mean.shape)
        self.kinds = dict.fromkeys(("squares", "distances"), wide_type(device))
        super().__init__(device)

    def batch_sums(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        errors = self.units.values(outputs) - targets
        return {"squares": errors.square().sum(1), "distances": errors.abs().sum(1)}

    def values(self, sums: Mapping[str, Any], examples: int) -> dict[str, float]:
        roots = [(total / examples) ** 0.5 for total in sums["squares"]]
        return {"rmse": sum(roots) / len(roots), "mae": sum(sums["distances"]) / len(roots) / examples}
