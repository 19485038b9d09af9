"""Filter response normalisation, and `tlu`, the activation that belongs to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dltrain.config import Positive
from dltrain.layers.activations import Activation, Start
from dltrain.layers.norms import Norm

if TYPE_CHECKING:
    from torch import Tensor, nn


class FilterResponseNorm(Norm):
    """Divides each map by its root mean square: g x / sqrt(mean x^2 + epsilon) + b; no mean is taken off.

    The paper follows it by the activation `tlu`; set that in place of ReLU.
    """

    source = "https://arxiv.org/abs/1911.09737"
    fact = 1.003928
    parameters = (2, 0)
    unchanged_by = frozenset({"scale", "batch"})
    name: Literal["filter_response_norm"] = "filter_response_norm"
    epsilon: Positive = 1e-6
    """Added to the mean square."""
    learned_epsilon: bool = False
    """Add a learned scalar, 1e-4 at the start, to epsilon: for maps of 1x1, where the norm is otherwise a sign."""

    def build(self, channels: int) -> nn.Module:
        from dltrain.layers.impl.norms import FilterResponseNorm

        return FilterResponseNorm(channels, self.epsilon, self.learned_epsilon)


class ThresholdedLinearUnit(Activation):
    """max(x, tau) with a tau that is learned for each channel: relu(x - tau) + tau."""

    source = "https://arxiv.org/abs/1911.09737"
    fact = {-2.0: 0.0, 3.0: 3.0}
    parameters = {64: 64}
    name: Literal["tlu"] = "tlu"

    def learned(self) -> dict[str, Start]:
        return {"threshold": 0.0}

    def formula(self, x: Tensor, threshold: Tensor) -> Tensor:
        return x.maximum(threshold)
