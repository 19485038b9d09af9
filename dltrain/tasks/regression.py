"""The task `regression`: one or several numbers per example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from dltrain.data.augmentation.base import Mixing
from dltrain.data.targets import Real, TargetSpec
from dltrain.tasks.base import Task
from dltrain.tasks.guess import Guess
from dltrain.tasks.losses import Loss, MeanSquaredError
from dltrain.tasks.metrics import Metric
from dltrain.tasks.outputs import Numbers, Output

if TYPE_CHECKING:
    import numpy as np
    import torch

    from dltrain.tasks.impl.regression import BuiltRegression
    from dltrain.tasks.outcomes import NumberOutcomes

FEW = 20
"""Examples below which chance explains a good part of the variance."""


class Regression(Task):
    """One number per example, or several, each learned in standard deviations from the mean of the training part.

    Answers, `rmse` (root mean squared error) and `mae` (mean absolute error) are in the units of the data, `loss` is
    not; of several numbers `rmse`, `mae` and `r2` (the share of the variance that is explained) are the means over
    them, and `eval` shows each. `mixup` blends numbers; of an image with a box pasted in they say nothing, so that
    `cutmix` is refused.
    """

    targets: ClassVar[tuple[type[TargetSpec], ...]] = (Real,)
    outputs: ClassVar[type[Output]] = Numbers
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("loss", "min"),
        Metric("rmse", "min", ".5g"),
        Metric("mae", "min", ".5g"),
        Metric("r2", "max", in_training=False),
    )
    ranks: ClassVar[str] = "rmse"
    mixing: ClassVar[tuple[Mixing, ...]] = ("blend",)
    confident: ClassVar[bool] = False
    name: Literal["regression"] = "regression"

    def default_loss(self) -> Loss:
        return MeanSquaredError()

    def output(self, target: TargetSpec) -> Numbers:
        return Numbers(len(target.names))

    def build(
        self, loss: Loss, target: TargetSpec, device: torch.device, *, targets: np.ndarray | None = None,
        auxiliary: float = 0.0, combined: bool = False,
    ) -> BuiltRegression:  # fmt: skip
        from dltrain.tasks.impl.regression import BuiltRegression

        assert isinstance(target, Real)
        return BuiltRegression(loss, loss.evaluation(), target, device, auxiliary)

    @classmethod
    def outcomes(cls) -> type[NumberOutcomes]:
        from dltrain.tasks.outcomes import NumberOutcomes

        return NumberOutcomes

    def guess(self, split: str, target: TargetSpec, targets: np.ndarray) -> Guess:
        """targets: (N, n), in their own units."""
        assert isinstance(target, Real)
        spread = targets.std(0)
        squares = [(own / of_training) ** 2 for own, of_training in zip(spread.tolist(), target.std, strict=True)]
        return MeanGuess(split, len(targets), sum(squares) / len(squares), float(spread.mean()))


@dataclass(frozen=True)
class MeanGuess(Guess):
    """Always the mean of a split; loss: the mean squared error, in the training part's standard deviations."""

    rmse: float

    def is_as_good_as(self, row: Mapping[str, float]) -> bool:
        """Of the variance, an unrelated answer that is scaled as well as can be explains 1 / n by chance, and hardly
        ever 4 / n. Of so few examples that any answer may explain some, nothing is said."""
        if self.examples < FEW or f"{self.split}/rmse" not in row:
            return False
        explained = row.get(f"{self.split}/r2", 1 - (row[f"{self.split}/rmse"] / self.rmse) ** 2)
        return explained <= 4 / self.examples

    def told(self, row: Mapping[str, float]) -> str:
        measured = f"a {self.split} RMSE of {row[f'{self.split}/rmse']:.5g} after epoch {int(row['epoch'])}"
        return f"{measured} is no better than always giving the mean ({self.rmse:.5g})"
