"""The smallest networks: softmax regression, a multilayer perceptron, a plain convolutional network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from dltrain.config import Fraction, PositiveInt, reject
from dltrain.data.types import ImageShape, InputSpec, Vector
from dltrain.layers.activations import Activation, ReLU
from dltrain.layers.norms import BatchNorm, Norm
from dltrain.models.adaptable import Adaptable
from dltrain.models.base import Model
from dltrain.tasks.losses import Loss, PerceptronLoss
from dltrain.tasks.outputs import Numbers, Output, YesNoLogits

if TYPE_CHECKING:
    from torch import nn

    from dltrain.models.impl.changes import Adapter


class SoftmaxRegression(Model):
    """One affine map from inputs to logits, starting at zero: a convex problem with cross-entropy."""

    inputs = (ImageShape, Vector)
    parameters = {("softmax_regression", "1x28x28", 10): 7_850}
    name: Literal["softmax_regression"] = "softmax_regression"

    def make(self, inputs: InputSpec, outputs: Output) -> nn.Module:
        from dltrain.models.impl.simple import affine

        return affine(inputs.size, outputs.count)


class LinearRegression(Model):
    """One affine map from inputs to numbers, starting at zero: with `mse` a convex problem, whose solution is that of
    least squares."""

    inputs = (ImageShape, Vector)
    outputs = (Numbers,)
    parameters = {("linear_regression", "1x28x28", 1): 785, ("linear_regression", "1x28x28", 10): 7_850}
    name: Literal["linear_regression"] = "linear_regression"

    def make(self, inputs: InputSpec, outputs: Output) -> nn.Module:
        from dltrain.models.impl.simple import affine

        return affine(inputs.size, outputs.count)


class LogisticRegression(Model):
    """One affine map from inputs to the logit of yes, or of each of several questions, starting at zero: with
    `binary_cross_entropy` a convex problem. Of one question it is the softmax regression of two classes, with the
    difference of their weights."""

    inputs = (ImageShape, Vector)
    outputs = (YesNoLogits,)
    parameters = {("logistic_regression", "1x28x28", 1): 785, ("logistic_regression", "1x28x28", 10): 7_850}
    name: Literal["logistic_regression"] = "logistic_regression"

    def make(self, inputs: InputSpec, outputs: Output) -> nn.Module:
        from dltrain.models.impl.simple import affine

        return affine(inputs.size, outputs.count)


class Perceptron(Model):
    """Rosenblatt's: yes where w.x + b > 0, starting at zero. Its loss is `perceptron` by default, whose gradient is its
    rule with `optimizer: {name: sgd, momentum: 0}` and `schedule: constant`; the rule sees one example at a time,
    `batch_size: 1`. It learns what a line divides, in a finite number of mistakes, and nothing else."""

    source = "Rosenblatt 1958, The Perceptron: A Probabilistic Model for Information Storage and Organization"
    inputs = (ImageShape, Vector)
    outputs = (YesNoLogits,)
    parameters = {("perceptron", "1x28x28", 1): 785, ("perceptron", "1x28x28", 10): 7_850}
    name: Literal["perceptron"] = "perceptron"

    def default_loss(self) -> Loss:
        return PerceptronLoss()

    def make(self, inputs: InputSpec, outputs: Output) -> nn.Module:
        from dltrain.models.impl.simple import affine

        return affine(inputs.size, outputs.count)


class MLP(Model):
    """Fully connected layers on all numbers of an example."""

    inputs = (ImageShape, Vector)
    parameters = {("mlp", "1x28x28", 10): 203_530}
    name: Literal["mlp"] = "mlp"
    hidden: list[PositiveInt] = [256]
    """Width of each hidden layer; an empty list gives softmax regression from a random start."""
    activation: Activation = ReLU()
    """The function after each hidden layer."""
    norm: Norm | None = None
    """Normalisation before each activation, or null for none."""
    dropout: Fraction = 0.0
    """Share of hidden units zeroed in training."""
    drop_connect: Fraction | None = None
    """Share of the weights of each layer zeroed in training, anew for each batch; null for none."""

    @model_validator(mode="after")
    def _norm_takes_vectors(self) -> MLP:
        if self.norm is not None and self.norm.least_pixels > 1:
            raise reject("norm", f"`{self.norm.name}` normalises within a map, and an `mlp` has none")
        return self

    @model_validator(mode="after")
    def _activation_takes_vectors(self) -> MLP:
        if self.activation.needs_maps:
            raise reject("activation", f"`{self.activation.name}` looks at whole maps, and an `mlp` has none")
        return self

    def make(self, inputs: InputSpec, outputs: Output) -> nn.Module:
        from dltrain.models.impl.changes import Adapter
        from dltrain.models.impl.simple import mlp

        network = mlp(inputs.size, outputs.count, self.hidden, self.activation, self.norm, self.dropout)
        adapter = Adapter(self.name, network, inputs)
        adapter.drop_connect(self.drop_connect)
        adapter.built_with(self.activation, self.norm)
        return adapter.finish()


class ConvNet(Adaptable):
    """A plain convolutional network: per stage convolutions and a 2x2 pool, then the mean of each map and one affine
    layer.

    Works for images of any size: a stage pools only while its maps have at least 2x2 pixels.
    """

    parameters = {("convnet", "1x8x8", 10): 94_186, ("convnet", "3x32x32", 10): 94_762}
    name: Literal["convnet"] = "convnet"
    widths: Annotated[list[PositiveInt], Field(min_length=1)] = [32, 64, 128]
    """Channels of each stage."""
    depth: PositiveInt = 1
    """Convolutions per stage."""
    kernel: PositiveInt = 3
    """Height and width of the convolutions: an odd number."""
    norm: Norm | None = BatchNorm()
    """Normalisation after each convolution, or null for none."""
    activation: Activation = ReLU()
    """The function after each normalisation."""
    pooling: Literal["max", "average"] = "max"
    """What a pool takes of its 2x2 values."""
    dropout: Fraction = 0.0
    """Share of the last layer's inputs zeroed in training."""

    @model_validator(mode="after")
    def _odd_kernel(self) -> ConvNet:
        if self.kernel % 2 == 0:
            raise reject("kernel", f"`kernel` must be odd, so that maps keep their size, not {self.kernel}")
        return self

    def build(self, shape: ImageShape, outputs: int) -> nn.Module:
        from dltrain.models.impl.parts import pool_first
        from dltrain.models.impl.simple import convnet

        network = convnet(
            shape, outputs, widths=self.widths, depth=self.depth, kernel=self.kernel, norm=self.norm,
            activation=self.activation, pooling=self.pooling, dropout=self.dropout,
        )  # fmt: skip
        return pool_first(self.adapted(network, shape))

    def exchange(self, adapter: Adapter) -> None:
        adapter.built_with(self.activation, self.norm)
