"""Autoencoders: networks that put out what looks like their input, after it went through a code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from dltrain.config import ConfigError, Diagnostic, Fraction, NonNegative, PositiveInt, reject
from dltrain.data.types import ImageShape, InputSpec, Vector
from dltrain.layers.activations import Activation, Identity, ReLU
from dltrain.layers.sigmoid_activations import Sigmoid
from dltrain.models.base import Model
from dltrain.tasks.outputs import Output

if TYPE_CHECKING:
    from torch import nn

    from dltrain.models.impl.autoencoders import Shapes

OPEN_UNIT = ("sigmoid", "hard_sigmoid")
"""Activations whose values can be taken for probabilities."""


class CodingModel(Model):
    """What all autoencoders share: the layers between input and code, and back.

    The encoder's tensors have the names of those of an `mlp` whose hidden layers are `hidden` and then `code`, so that
    a classifier can start from them: `initialize_from: {path: RUN, part: encoder}`.
    """

    inputs = (ImageShape, Vector)
    reconstructs = True
    hidden: list[PositiveInt] = []
    """Widths of the layers between the input and the code; the decoder has the same ones in reverse."""
    code: PositiveInt = 128
    """How many numbers the code has."""
    activation: Activation | None = ReLU()
    """The function after each hidden layer; null for none: then all is linear."""
    channels: list[PositiveInt] | None = None
    """Channels of 3x3 convolutions with stride 2 before the hidden layers, and of transposed ones behind them in the
    decoder: images only; null for none."""
    dropout: Fraction = 0.0
    """Share of the units of each fully connected layer of the encoder zeroed in training."""

    @model_validator(mode="after")
    def _activation_takes_vectors(self) -> CodingModel:
        if self.activation is not None and self.activation.needs_maps:
            raise reject("activation", f"`{self.activation.name}` looks at whole maps, and a code has none")
        return self

    def shapes(self, inputs: InputSpec) -> Shapes:
        """What the layers are made for. Raises ConfigError for convolutions of what is no image."""
        from dltrain.models.impl.autoencoders import Shapes

        if self.channels and not isinstance(inputs, ImageShape):
            raise ConfigError([Diagnostic(f"`channels` are of images, and the data gives {inputs}", key="channels")])
        return Shapes(inputs, self.channels or [], self.hidden, self.activation or Identity(), self.dropout)


class PlainCode(CodingModel):
    """An encoder and a decoder, and no more between them than a code."""

    linear_code: bool = False
    """Whether the code is without activation, as is usual behind hidden layers: a code of `relu` units can lose some
    of them for good."""
    tied: bool = False
    """Whether the decoder's weights are those of the encoder, transposed; it has biases of its own."""

    @property
    def code_activation(self) -> Activation:
        """The function after the code."""
        return Identity() if self.linear_code or self.activation is None else self.activation

    def make(self, inputs: InputSpec, outputs: Output) -> nn.Module:
        from dltrain.models.impl.autoencoders import Autoencoder

        encoder, decoder = self.shapes(inputs).coder(self.code, self.code_activation, tied=self.tied)
        return Autoencoder(encoder, decoder, self.corruption(), self.penalty(encoder))

    def corruption(self) -> nn.Module | None:
        """What changes the inputs in training."""
        return None

    def penalty(self, encoder: nn.Sequential) -> nn.Module | None:
        """What the codes (B, code) add to the loss of each example in training."""
        return None


class AutoencoderModel(PlainCode):
    """An encoder that makes a code of an input, and a decoder that makes the input of the code again.

    With `activation: null` its best is that of a principal component analysis. A penalty on the weights is one of the
    experiment's `penalties`; it and `contractive` count in training only, not in what is reported of other data.
    """

    source = "https://doi.org/10.1126/science.1127647"
    parameters = {("autoencoder", "1x28x28", 10): 201_616}
    name: Literal["autoencoder"] = "autoencoder"
    contractive: NonNegative = 0.0
    """How much the squared Frobenius norm of the derivatives of the code by the input counts (Rifai et al. 2011):
    sum_j f'_j^2 sum_i W_ji^2, of a code behind no hidden layers."""

    @model_validator(mode="after")
    def _derivative_is_known(self) -> AutoencoderModel:
        from dltrain.models.derivatives import BY_VALUE

        if not self.contractive:
            return self
        if self.hidden or self.channels:
            raise reject("contractive", "`contractive` is of a code behind no other layers: leave `hidden` and "
                         "`channels` out")  # fmt: skip
        if self.code_activation.name not in BY_VALUE:
            names = ", ".join(f"`{name}`" for name in BY_VALUE)
            raise reject("contractive", f"`contractive` takes a code of {names}, not of `{self.code_activation.name}`")
        return self

    def penalty(self, encoder: nn.Sequential) -> nn.Module | None:
        from dltrain.models.impl.autoencoders import Contraction

        return Contraction(encoder, self.code_activation.name, self.contractive) if self.contractive else None


class SparseAutoencoder(PlainCode):
    """An autoencoder of whose code few units are active at a time.

    The penalty counts in training only. The usual `weight` is meant for `loss: {name: mse, form: half_sum}`: beside the
    mean over all values it is large.
    """

    source = "https://web.stanford.edu/class/cs294a/sparseAutoencoder.pdf"
    parameters = {("sparse_autoencoder", "1x28x28", 10): 201_616}
    name: Literal["sparse_autoencoder"] = "sparse_autoencoder"
    activation: Activation | None = Sigmoid()
    """The function after each hidden layer and the code; null for none."""
    sparsity: Literal["kl", "l1"] = "kl"
    """kl: sum_j KL(rho | mean of unit j over the examples that are computed together), of units in 0..1. l1: the sum of
    the absolute values of the code."""
    rho: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The mean that each unit shall have, with `kl`."""
    weight: NonNegative = 3.0
    """What the penalty counts."""

    @model_validator(mode="after")
    def _units_are_probabilities(self) -> SparseAutoencoder:
        if self.sparsity == "kl" and self.code_activation.name not in OPEN_UNIT:
            names = " or ".join(f"`{name}`" for name in OPEN_UNIT)
            message = f"`sparsity: kl` takes a code of {names}, not of `{self.code_activation.name}`"
            raise reject("sparsity", f"{message}: `sparsity: l1` takes any")
        return self

    def penalty(self, encoder: nn.Sequential) -> nn.Module:
        from dltrain.models.impl.autoencoders import Absolute, Sparsity

        return Sparsity(self.rho, self.weight) if self.sparsity == "kl" else Absolute(self.weight)


class DenoisingAutoencoder(PlainCode):
    """An autoencoder that gets a corrupted input in training, and is compared with the input as it was."""

    source = "https://www.jmlr.org/papers/v11/vincent10a.html"
    parameters = {("denoising_autoencoder", "1x28x28", 10): 201_616}
    name: Literal["denoising_autoencoder"] = "denoising_autoencoder"
    noise: Literal["mask", "gaussian", "salt_and_pepper"] = "mask"
    """mask: some values become 0. gaussian: all get normal noise. salt_and_pepper: some become the least or the largest
    value of their example. Of the scaled values that the network gets, anew in each step."""
    amount: NonNegative = 0.3
    """The share of the values that are changed; of `gaussian`, the standard deviation of the noise."""

    @model_validator(mode="after")
    def _amount_is_a_share(self) -> DenoisingAutoencoder:
        if self.noise != "gaussian" and self.amount > 1:
            raise reject("amount", f"`amount` is a share of the values, at most 1, not {self.amount:g}")
        return self

    def corruption(self) -> nn.Module:
        from dltrain.models.impl.autoencoders import CORRUPTIONS

        return CORRUPTIONS[self.noise](self.amount)


class VariationalAutoencoder(CodingModel):
    """An encoder to a normal distribution of codes, and a decoder of codes that are drawn from it.

    The loss, of every split, is the negative evidence lower bound: the loss of the section summed over the values of an
    input, in place of its mean, and beta times -1/2 sum(1 + log s^2 - m^2 - s^2), the divergence KL(N(m, s) | N(0, 1)).
    In evaluation the answer is that of the mean code, and the loss that of a code drawn always alike. The recorders
    show images of codes from N(0, 1).
    """

    source = "https://arxiv.org/abs/1312.6114"
    parameters = {("variational_autoencoder", "1x28x28", 10): 652_824}
    name: Literal["variational_autoencoder"] = "variational_autoencoder"
    hidden: list[PositiveInt] = [400]
    """Widths of the layers between the input and the code; the decoder has the same ones in reverse."""
    code: PositiveInt = 20
    """How many numbers the code has."""
    beta: NonNegative = 1.0
    """What the divergence counts; above 1, codes come closer to N(0, 1) and reconstructions get worse
    (https://openreview.net/forum?id=Sy2fzU9gl)."""

    def make(self, inputs: InputSpec, outputs: Output) -> nn.Module:
        from dltrain.models.impl.autoencoders import VariationalNetwork

        shapes = self.shapes(inputs)
        encoder, size = shapes.encoder()
        return VariationalNetwork(encoder, shapes.decoder(self.code), size, self.code, self.beta)
