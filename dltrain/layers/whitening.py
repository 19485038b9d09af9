"""A first layer that whitens patches of the images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dltrain.config import Positive, PositiveInt, Section
from dltrain.layers.activations import GELU, Activation

if TYPE_CHECKING:
    from torch import nn


class Whitening(Section):
    """A frozen convolution in front of the network: its filters are the eigenvectors of the patches of the training
    images, each divided by the root of its eigenvalue, and their negatives (https://arxiv.org/abs/2404.00498).
    """

    kernel: PositiveInt = 2
    """Height and width of a patch; C channels give 2 C kernel^2 maps, kernel - 1 pixels smaller than the image."""
    images: PositiveInt = 5000
    """Training images, augmented, whose patches are measured, about: whole batches are taken."""
    epsilon: Positive = 5e-4
    """Added to the eigenvalues, of images scaled to variance 1."""
    bias: bool = True
    """Learn an offset for each map; the filters are never learned."""
    activation: Activation | None = None
    """The function after it; null for the network's, where that is set, else gelu."""

    def maps(self, channels: int) -> int:
        """How many maps it makes."""
        return 2 * channels * self.kernel**2

    def build(self, channels: int, network: nn.Module, activation: Activation | None = None) -> nn.Module:
        """`network`, which takes the maps and has this activation, behind the layer, whose filters are 0 until they
        are measured."""
        from dltrain.layers.impl.whitening import Whitened

        maps = self.maps(channels)
        function = (self.activation or activation or GELU()).build(maps)
        return Whitened(channels, maps, self.kernel, self.bias, function, network)
