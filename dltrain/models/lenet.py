"""LeNet-5, in the form that textbooks teach and in a modern one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dltrain.data.base import ImageShape
from dltrain.layers.activations import Activation, ReLU
from dltrain.layers.squashing import Sigmoid
from dltrain.models.base import Model

if TYPE_CHECKING:
    from torch import nn


class LeNet5(Model):
    """Two 5x5 convolutions with sigmoid and average pooling, then layers of 120 and 84 units; Xavier initialisation.

    The paper of 1998 has scaled tanh, trainable subsampling and radial basis outputs instead.
    """

    source = "LeCun et al. 1998"
    parameters = {
        ("lenet5", "1x28x28", 10): 61_706,
        ("lenet5", "1x32x32", 10): 61_706,
        ("lenet5", "3x32x32", 10): 62_006,
    }
    name: Literal["lenet5"] = "lenet5"
    activation: Activation | None = None
    """The function after each layer but the last, or null for the sigmoid."""

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        from dltrain.models.networks.lenet import lenet5

        return lenet5(self.name, shape, classes, self.activation or Sigmoid(), pooling="average", gain="xavier")


class LeNet5Modern(Model):
    """LeNet-5 with ReLU, max pooling and He initialisation."""

    source = "LeCun et al. 1998"
    parameters = {
        ("lenet5_modern", "1x28x28", 10): 61_706,
        ("lenet5_modern", "1x32x32", 10): 61_706,
        ("lenet5_modern", "3x32x32", 10): 62_006,
    }
    name: Literal["lenet5_modern"] = "lenet5_modern"
    activation: Activation | None = None
    """The function after each layer but the last, or null for ReLU."""

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        from dltrain.models.networks.lenet import lenet5

        return lenet5(self.name, shape, classes, self.activation or ReLU(), pooling="max", gain="he")
