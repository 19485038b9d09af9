"""The restricted Boltzmann machine: a network of visible and hidden units with an energy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from dltrain.config import PositiveInt
from dltrain.data.types import ImageShape, InputSpec, Vector
from dltrain.models.base import Model
from dltrain.tasks.outputs import Output

if TYPE_CHECKING:
    from torch import Tensor, nn

LOOKED_AT = 2000
"""Training examples whose means the visible units begin with."""


class RestrictedBoltzmannMachine(Model):
    """Binary hidden units h and visible units v with the energy E(v, h) = -a.v - b.h - v.W.h.

    Training minimises F(v) - F(v'), with the free energy F(v) = -a.v - sum softplus(b + v W) and v' from Gibbs
    sampling: its gradient is that of contrastive divergence, or, with `chains`, of persistent contrastive divergence.
    The loss that is reported is minus the logarithm of the pseudo-likelihood, sum_i log p(v_i | all others), from 16
    units of each example; of `gaussian` units, half of the squared error of the reconstruction. The recorders show
    what the units of Gibbs sampling look like. The biases a begin so that each visible unit alone has the mean that it
    has in the training examples (Hinton 2010, a practical guide).
    """

    source = "https://doi.org/10.1162/089976602760128018"
    parameters = {("restricted_boltzmann_machine", "1x28x28", 10): 201_744}
    inputs = (ImageShape, Vector)
    reconstructs = True
    replaces_loss = True
    name: Literal["restricted_boltzmann_machine"] = "restricted_boltzmann_machine"
    hidden: PositiveInt = 256
    """How many hidden units there are."""
    visible: Literal["binary", "gaussian"] = "binary"
    """binary: inputs in 0..1 are the probabilities of ones. gaussian: any numbers, of variance 1 around their mean, as
    `data.scaling: standardize` makes them; a.v is then -1/2 |v - a|^2."""
    steps: PositiveInt = 1
    """Gibbs steps from the example, or of each chain in a step of the training (the k of CD-k)."""
    chains: PositiveInt | None = None
    """How many chains go on from one step of the training to the next (https://doi.org/10.1145/1390156.1390290); null
    for chains that start from the examples. They learn slower, with better samples: use a small learning rate."""

    @property
    def takes_probabilities(self) -> bool:
        return self.visible == "binary"

    def start(self, network: nn.Module, images: Callable[[int], Iterable[Tensor]]) -> None:
        network.begin(images(LOOKED_AT))  # type: ignore[operator]

    def make(self, inputs: InputSpec, outputs: Output) -> nn.Module:
        from dltrain.models.impl.boltzmann import BoltzmannMachine

        example = inputs.example(1, "meta").shape[1:]
        return BoltzmannMachine(
            tuple(example), self.hidden, gaussian=self.visible == "gaussian", steps=self.steps, chains=self.chains
        )
