"""LeNet-5, in the form that textbooks teach and in a modern one."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from dltrain.data.types import ImageShape
from dltrain.layers.activations import Activation
from dltrain.layers.norms import Norm
from dltrain.layers.sigmoid_activations import Sigmoid
from dltrain.models.native import NativeModel

if TYPE_CHECKING:
    from torch import nn

    from dltrain.models.impl.parts import Layers


class LeNet5(NativeModel):
    """Two 5x5 convolutions with sigmoid and average pooling, then layers of 120 and 84 units; Xavier initialisation.

    The paper of 1998 has scaled tanh, trainable subsampling and radial basis outputs instead.
    """

    source = "LeCun et al. 1998"
    parameters = {
        ("lenet5", "1x28x28", 10): 61_706,
        ("lenet5", "1x32x32", 10): 61_706,
        ("lenet5", "3x32x32", 10): 62_006,
    }
    published_activation: ClassVar[Activation] = Sigmoid()
    published_norm: ClassVar[Norm | None] = None
    name: Literal["lenet5"] = "lenet5"

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.lenet import lenet5

        return lenet5(shape, outputs, parts, pooling="average", gain="xavier")


class LeNet5Modern(NativeModel):
    """LeNet-5 with ReLU, max pooling and He initialisation."""

    source = "LeCun et al. 1998"
    parameters = {
        ("lenet5_modern", "1x28x28", 10): 61_706,
        ("lenet5_modern", "1x32x32", 10): 61_706,
        ("lenet5_modern", "3x32x32", 10): 62_006,
    }
    published_norm: ClassVar[Norm | None] = None
    name: Literal["lenet5_modern"] = "lenet5_modern"

    def network(self, shape: ImageShape, outputs: int, parts: Layers) -> nn.Module:
        from dltrain.models.impl.lenet import lenet5

        return lenet5(shape, outputs, parts, pooling="max", gain="he")
