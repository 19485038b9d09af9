"""How the gradient is found that the optimizer steps along: by a backward pass, or estimated from forward passes."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from dltrain.config import Choice, Positive, PositiveInt

if TYPE_CHECKING:
    from dltrain.optim.impl.gradients import Estimator


class Gradient(Choice):
    """How the gradient is found that the optimizer steps along.

    An estimate needs no backward pass, and keeps no activations for one. It takes any optimizer that steps along
    gradients; what is drawn for it is a function of (seed, step), and the same on all devices.
    """

    kind: ClassVar[str] = "gradients"
    backward: ClassVar[bool] = False
    """Whether it comes from a backward pass, which needs the activations of the forward pass."""
    compares_losses: ClassVar[bool] = False
    """Whether it is the difference of two losses that are nearly the same."""
    differentiates: ClassVar[bool] = False
    """Whether each operation of the network must have a forward-mode derivative."""

    name: str

    @property
    def copies(self) -> int:
        """Tensors as large as all weights that a step needs besides these and their gradient."""
        return 0

    @abstractmethod
    def build(self) -> Estimator | None:
        """What estimates it in a step; None for a backward pass."""


class Backpropagation(Gradient):
    """The gradient itself, by a backward pass through the network."""

    source = "https://doi.org/10.1038/323533a0"
    backward = True
    name: Literal["backpropagation"] = "backpropagation"

    def build(self) -> None:
        return None


class Estimated(Gradient):
    """What the estimates share. The variance of one grows with the number of weights n, and its squared length is about
    n times the gradient's: a small learning rate, or `training.clip_norm`, keeps steps short."""

    directions: PositiveInt = 1
    """Random directions in a step, each with its own passes of the batch; their estimates are averaged."""

    @abstractmethod
    def growth(self, weights: int) -> float:
        """The mean squared length of the estimate in one direction, over that of the gradient of so many weights."""


class Forward(Estimated):
    """The forward gradient (g v) v: the derivative of the loss in a random direction v ~ N(0, I), found exactly beside
    the loss in one forward-mode pass. Its mean is the gradient g."""

    source = "https://arxiv.org/abs/2202.08587"
    differentiates = True
    name: Literal["forward"] = "forward"

    def growth(self, weights: int) -> float:
        return weights + 2

    @property
    def copies(self) -> int:
        return min(self.directions - 1, 1)

    def build(self) -> Estimator:
        from dltrain.optim.impl.gradients import ForwardMode

        return ForwardMode(self.directions)


class SPSA(Estimated):
    """Simultaneous perturbation: (L(w + e z) - L(w - e z)) / (2 e) z, with a sign z = 1 or -1 for each weight, by two
    forward passes. The weights are put back exactly."""

    source = "https://doi.org/10.1109/9.119632"
    compares_losses = True
    name: Literal["spsa"] = "spsa"
    perturbation: Positive = 1e-3
    """e: how far each weight is moved."""

    def growth(self, weights: int) -> float:
        return weights

    @property
    def copies(self) -> int:
        return 1

    def build(self) -> Estimator:
        from dltrain.optim.impl.gradients import TwoPoints, signs

        return TwoPoints(self.directions, self.perturbation, signs, keep=True)


class MeZO(Estimated):
    """SPSA with z ~ N(0, I) that is drawn again from its seed wherever it is needed, and weights that are moved in
    place and back: no memory but for the weights and what the optimizer takes. They come back but for rounding."""

    source = "https://arxiv.org/abs/2305.17333"
    compares_losses = True
    name: Literal["mezo"] = "mezo"
    perturbation: Positive = 1e-3
    """e: the size of the move of each weight, as a standard deviation."""

    def growth(self, weights: int) -> float:
        return weights + 2

    def build(self) -> Estimator:
        from dltrain.optim.impl.gradients import TwoPoints, normal

        return TwoPoints(self.directions, self.perturbation, normal, keep=False)
