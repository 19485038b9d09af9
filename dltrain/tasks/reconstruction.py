"""The task `reconstruction`: the input itself, after it went through a network that cannot simply copy it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from dltrain.data.targets import Classes, Labels, NoTarget, Real, TargetSpec
from dltrain.tasks.base import Task
from dltrain.tasks.losses import Loss, MeanSquaredError
from dltrain.tasks.metrics import Metric
from dltrain.tasks.outputs import LikeInput, Output

if TYPE_CHECKING:
    import numpy as np
    import torch

    from dltrain.tasks.impl.reconstruction import BuiltReconstruction
    from dltrain.tasks.outcomes import InputOutcomes


class Reconstruction(Task):
    """The input itself, as the network gets it; what the data has for targets is not looked at.

    A network that changes its input on purpose, such as a denoising autoencoder, is compared with the unchanged one.
    `mse` is of the scaled values that the network gets.
    """

    targets: ClassVar[tuple[type[TargetSpec], ...]] = (NoTarget, Classes, Real, Labels)
    outputs: ClassVar[type[Output]] = LikeInput
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("loss", "min"), Metric("mse", "min", ".4g"))
    ranks: ClassVar[str] = "loss"
    combines_views: ClassVar[bool] = False
    confident: ClassVar[bool] = False
    name: Literal["reconstruction"] = "reconstruction"

    def default_loss(self) -> Loss:
        return MeanSquaredError()

    def output(self, target: TargetSpec) -> LikeInput:
        return LikeInput()

    def build(
        self, loss: Loss, target: TargetSpec, device: torch.device, *, targets: np.ndarray | None = None,
        auxiliary: float = 0.0, combined: bool = False,
    ) -> BuiltReconstruction:  # fmt: skip
        """Of the mean of several networks' reconstructions, the loss is that of the section alone."""
        from dltrain.tasks.impl.reconstruction import BuiltReconstruction

        return BuiltReconstruction(loss, device)

    @classmethod
    def outcomes(cls) -> type[InputOutcomes]:
        from dltrain.tasks.outcomes import InputOutcomes

        return InputOutcomes

    def guess(self, split: str, target: TargetSpec, targets: np.ndarray) -> None:
        """What the mean of all inputs would reach is not known from the targets."""
        return
