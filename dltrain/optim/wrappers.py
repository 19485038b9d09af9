"""What can be put around any optimizer: slow weights that follow, and a step to where the loss is sharpest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from dltrain.config import NonNegative, PositiveInt, Section

if TYPE_CHECKING:
    from torch import nn

    from dltrain.optim.impl.wrappers import SharpnessAware, SlowWeights


class Lookahead(Section):
    """Every so many steps slow weights move towards the optimizer's, slow += alpha (fast - slow), and it goes on from
    there (https://arxiv.org/abs/1907.08610). The slow weights are what validation, `best` and `eval` see, unless
    there is a `training.average`.
    """

    steps: PositiveInt = 5
    """Optimizer steps between two moves of the slow weights."""
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.5
    """How far they move; 1 is the optimizer alone."""
    power: NonNegative = 0.0
    """How `alpha` is reached: after step t of T it is 1 - (1 - alpha) (t / T)^power. 0: from the start; 3, as in
    airbench (https://arxiv.org/abs/2404.00498): at first the optimizer is alone."""

    def build(self, model: nn.Module, total_steps: int) -> SlowWeights:
        """What follows the weights of `model` through a training of `total_steps`."""
        from dltrain.optim.impl.wrappers import SlowWeights

        return SlowWeights(model, self.steps, lambda done: 1 - (1 - self.alpha) * (done / total_steps) ** self.power)


class SAM(Section):
    """Sharpness-aware minimisation: the gradient of each step is that at w + rho g / |g|, on the same batch, at twice
    the cost (https://arxiv.org/abs/2010.01412).
    """

    rho: NonNegative = 0.05
    """Distance to where the gradient is taken; 0 is the optimizer alone."""
    adaptive: bool = False
    """Measure that distance relative to each weight (https://arxiv.org/abs/2102.11600); rho is then 10 times larger."""

    def build(self, model: nn.Module) -> SharpnessAware:
        """What moves the weights of `model` there and back."""
        from dltrain.optim.impl.wrappers import SharpnessAware

        return SharpnessAware(model, self.rho, self.adaptive)
