"""Normalisations of the layers before them: of their weights, or of weights and inputs."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from dltrain.config import Positive
from dltrain.layers.norms import Norm

if TYPE_CHECKING:
    from torch import nn


class RewritingNorm(Norm):
    """A norm that takes the place of the network's norms by rewriting its convolutions and hidden linear layers.

    What is built between layers is the identity; `rewrite` makes the layer.
    """

    parameters = (0, 0)
    fact: ClassVar[float | None] = 3.83
    unchanged_by = frozenset({"batch"})
    shifts = False

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.Identity()

    @abstractmethod
    def rewrite(self, layer: nn.Module) -> nn.Module:
        """`layer`, a convolution or linear layer, as this norm wants it. Raises ValueError for one that it cannot."""


class WeightNorm(RewritingNorm):
    """Each output's weights are g v / |v|, with a learned length g and direction v; and a bias is added.

    It takes the place of the network's norms: all convolutions and hidden linear layers are rewritten. g is |v|
    at the start, so that the outputs are those of the plain layer.
    """

    source = "https://arxiv.org/abs/1602.07868"
    name: Literal["weight_norm"] = "weight_norm"

    def rewrite(self, layer: nn.Module) -> nn.Module:
        from dltrain.layers.impl.weight_norms import weight_normalized

        return weight_normalized(layer)


class CosineNorm(RewritingNorm):
    """Outputs w.x / (|w| |x|): the cosine of the angle between the weights and the inputs, for a convolution those of
    each patch. It takes the place of the network's norms: all convolutions and hidden linear layers are rewritten.
    """

    source = "https://arxiv.org/abs/1702.05870"
    name: Literal["cosine_norm"] = "cosine_norm"
    centered: bool = False
    """Take the means off weights and inputs first: the Pearson correlation."""
    scale: bool = False
    """Multiply each output by a learned scale, 1 at the start."""
    epsilon: Positive = 1e-6
    """Added to the squared lengths."""

    def rewrite(self, layer: nn.Module) -> nn.Module:
        from dltrain.layers.impl.weight_norms import CosineLayer

        return CosineLayer(layer, self.centered, self.scale, self.epsilon)
