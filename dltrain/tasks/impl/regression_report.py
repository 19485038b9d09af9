"""What a split says about a model of numbers, summed up on the device and read once, and its table. Imports torch.

outputs: (B, n) in standard deviations of the training part. targets: (B, n) in their own units. losses: (B,).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dltrain.tasks.impl.meters import Report
from dltrain.tasks.impl.tables import aligned, plain

MOST = 30
"""Numbers in a table."""


class RegressionReport(Report):
    """The errors of each number in its own units, and R2, the share of its variance that is explained."""

    def __init__(self, names: Sequence[str], mean: Tensor, std: Tensor) -> None:
        """names: of the numbers. mean, std: (n,) of each in the training part."""
        self.names, self.mean, self.std = list(names), mean, std
        self.totals = mean.new_zeros(4, len(self.names))
        """Sums of squared and of absolute errors, and of the targets and their squares, all in standard deviations."""
        self.loss_sum = mean.new_zeros(())
        self.count = torch.zeros((), dtype=torch.int64, device=mean.device)

    @torch.no_grad()
    def update(self, outputs: Tensor, targets: Tensor, losses: Tensor, valid: int | None = None) -> None:
        expected = (targets[:valid].to(self.mean.dtype) - self.mean) / self.std
        errors = outputs[:valid].to(self.mean.dtype) - expected
        self.totals += torch.stack([errors.square(), errors.abs(), expected, expected.square()]).sum(1)
        self.loss_sum += losses[:valid].sum(dtype=self.loss_sum.dtype)
        self.count += len(errors)

    @property
    def sums(self) -> list[Tensor]:
        return [self.totals, self.loss_sum, self.count]

    @property
    def examples(self) -> int:
        """How many examples were measured. Raises ValueError when there were none."""
        if count := int(self.count):
            return count
        raise ValueError("no example was measured")

    @property
    def per_target(self) -> list[dict[str, Any]]:
        """Of each number its errors, R2, and the standard deviation of its targets, which always giving their mean has
        as RMSE. R2 is not a number where that is 0."""
        n, found = self.examples, []
        for name, std, (squares, distances, total, total_squares) in zip(
            self.names, self.std.tolist(), self.totals.T.tolist(), strict=True
        ):
            spread = total_squares - total**2 / n
            found.append({
                "target": name, "rmse": math.sqrt(squares / n) * std, "mae": distances / n * std,
                "r2": 1 - squares / spread if spread > 1e-12 * total_squares else math.nan,
                "spread": math.sqrt(max(spread, 0.0) / n) * std,
            })  # fmt: skip
        return found

    def compute(self) -> dict[str, float]:
        rows = self.per_target
        means = {key: sum(row[key] for row in rows) / len(rows) for key in ("rmse", "mae", "r2")}
        return {"loss": float(self.loss_sum) / self.examples, **means}

    def to_dict(self) -> dict[str, Any]:
        """`rmse`, `mae` and `r2` are means over the numbers; R2 is None where targets do not vary."""
        return {
            "examples": self.examples,
            **{key: plain(value) for key, value in self.compute().items()},
            "per_target": [{key: plain(value) for key, value in row.items()} for row in self.per_target],
        }

    def table(self) -> str:
        """With many numbers, those with the lowest R2."""
        report = self.to_dict()
        lines = [f"{'examples':<10}{report['examples']:>12}"]
        for key, name in (("rmse", "RMSE"), ("mae", "MAE"), ("r2", "R2"), ("loss", "loss")):
            lines.append(f"{name:<10}{_text(report[key]):>12}")
        rows = report["per_target"]
        if len(rows) > MOST:
            rows = sorted(rows, key=lambda row: (row["r2"] is not None, row["r2"] or 0.0))[:MOST]
            lines += ["", f"the {MOST} of {len(report['per_target'])} numbers with the lowest R2:"]
        elif len(rows) > 1:
            lines += ["", "the means of these:"]
        else:
            lines.append("")
        keys = ("rmse", "mae", "r2", "spread")
        cells = [[row["target"], *(_text(row[key]) for key in keys)] for row in rows]
        return "\n".join([*lines, *aligned(["target", "RMSE", "MAE", "R2", "std of targets"], cells)])


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"
