"""The kind `Initialization`: the values that weights start from."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from dltrain.config import Choice, ConfigError, Diagnostic, Positive, PositiveInt

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Initialization(Choice):
    """The initial weights of all linear layers and convolutions of a network; their biases start at 0.

    `fact` holds the root mean square of the weights for the shape of a weight: that of a linear layer
    (outputs, inputs), or of a convolution (outputs, inputs, height, width), to 3 %. The contract test
    requires one. `needs_images` says whether it looks at data.
    """

    kind: ClassVar[str] = "initializations"
    fact: ClassVar[dict[tuple[int, ...], float]] = {}
    needs_images: ClassVar[bool] = False
    without_norms: ClassVar[bool] = False
    """Whether the network is to lose its norms, for scalars that are learned."""

    def apply(self, model: nn.Module, seed: int, images: Tensor | None = None) -> None:
        """Overwrite the weights of `model`, as a function of `seed`.

        `images` (B, C, H, W) is a batch as the network gets it, for those that look at data. Raises
        ConfigError when the network cannot start so.
        """
        from dltrain.layers.impl.initializations import draw_weights

        draw_weights(model, seed, self.draw)

    @abstractmethod
    def draw(self, values: Tensor, layer: nn.Module, generator: torch.Generator) -> None:
        """Write the initial values of one layer's weight into `values`, a float32 tensor of its shape."""


class Equal(Initialization):
    """What initializations with equal weights share."""

    fact = {(400, 200): 0.0}

    def apply(self, model: nn.Module, seed: int, images: Tensor | None = None) -> None:
        from dltrain.layers.impl.initializations import weighted_layers

        names = [name for name, _ in weighted_layers(model)]
        if len(names) > 1:
            message = (
                f"initialization `{self.name}` makes all units of a hidden layer equal, and training keeps them so"
            )
            notes = (f"it is for one layer with weights, and the network has {len(names)}", "use `he_normal`")
            raise ConfigError([Diagnostic(message, notes=notes)])
        super().apply(model, seed)


class Zeros(Equal):
    """All weights 0: only for a network without hidden layers, whose units would stay equal forever."""

    name: Literal["zeros"] = "zeros"

    def draw(self, values: Tensor, layer: nn.Module, generator: torch.Generator) -> None:
        values.zero_()


class Constant(Equal):
    """All weights alike: only for a network without hidden layers, whose units would stay equal forever."""

    name: Literal["constant"] = "constant"
    value: float = 0.0
    """The value of each weight."""

    def draw(self, values: Tensor, layer: nn.Module, generator: torch.Generator) -> None:
        values.fill_(self.value)


class FixedDeviation(Initialization):
    """The options of initializations that know no layer sizes."""

    deviation: Positive = 0.01
    """Standard deviation of the weights."""


class Normal(FixedDeviation):
    """Normal values of a fixed standard deviation, as AlexNet's."""

    source = "Krizhevsky et al. 2012"
    fact = {(400, 200): 0.01, (48, 16, 3, 3): 0.01}
    name: Literal["normal"] = "normal"

    def draw(self, values: Tensor, layer: nn.Module, generator: torch.Generator) -> None:
        from dltrain.layers.impl import initializations as initializing

        initializing.normal(values, self.deviation, generator)


class Uniform(FixedDeviation):
    """Uniform values of a fixed standard deviation: between -sqrt(3) and sqrt(3) times it."""

    fact = {(400, 200): 0.01, (48, 16, 3, 3): 0.01}
    name: Literal["uniform"] = "uniform"

    def draw(self, values: Tensor, layer: nn.Module, generator: torch.Generator) -> None:
        from dltrain.layers.impl import initializations as initializing

        initializing.uniform(values, self.deviation, generator)


class TruncatedNormal(FixedDeviation):
    """Normal values without the far ones, of a fixed standard deviation after the cut."""

    fact = {(400, 200): 0.01, (48, 16, 3, 3): 0.01}
    name: Literal["trunc_normal"] = "trunc_normal"
    cut: Positive = 2.0
    """Values beyond this many standard deviations (of before the cut) are drawn anew."""

    def draw(self, values: Tensor, layer: nn.Module, generator: torch.Generator) -> None:
        from dltrain.layers.impl import initializations as initializing

        initializing.truncated(values, self.deviation, generator, self.cut)


class Scaled(Initialization):
    """What initializations with a variance of each layer share."""

    @abstractmethod
    def variance(self, fan_in: int, fan_out: int) -> float:
        """The variance of the weights, from the number of inputs of a unit and the number of its readers."""

    def draw(self, values: Tensor, layer: nn.Module, generator: torch.Generator) -> None:
        from dltrain.layers.impl import initializations as initializing

        assert isinstance(layer, initializing.Weighted)
        write = initializing.uniform if self.name.endswith("_uniform") else initializing.normal
        write(values, self.variance(*initializing.fans(layer)) ** 0.5, generator)


class Xavier(Scaled):
    """Variance 2 gain^2 / (fan in + fan out): for sigmoid and tanh; by Glorot."""

    source = "Glorot & Bengio 2010"
    fact = {(400, 200): 0.057735, (48, 16, 3, 3): 0.058926}
    name: Literal["xavier_normal", "xavier_uniform"]
    gain: Positive = 1.0
    """Factor on the standard deviation: 5/3 is usual for tanh, 4 for the sigmoid."""

    def variance(self, fan_in: int, fan_out: int) -> float:
        return 2 * self.gain**2 / (fan_in + fan_out)


class He(Scaled):
    """Variance 2 / fan: keeps the mean square from layer to layer under ReLU; by Kaiming He."""

    source = "https://arxiv.org/abs/1502.01852"
    fact = {(400, 200): 0.1, (48, 16, 3, 3): 0.117851}
    name: Literal["he_normal", "he_uniform"]
    fan: Literal["in", "out"] = "in"
    """`in` keeps the size of activations, `out` (ResNet's) that of gradients."""

    def variance(self, fan_in: int, fan_out: int) -> float:
        return 2 / (fan_in if self.fan == "in" else fan_out)


class ZeroGamma(Scaled):
    """`he_normal` with the fan out, and a gain of 0 in the norm at the end of each residual branch, so that each block
    starts as its shortcut.
    """

    source = "https://arxiv.org/abs/1706.02677"
    needs_images = True
    fact = {(400, 200): 0.070711, (48, 16, 3, 3): 0.068041}
    name: Literal["zero_gamma"] = "zero_gamma"

    def variance(self, fan_in: int, fan_out: int) -> float:
        return 2 / fan_out

    def apply(self, model: nn.Module, seed: int, images: Tensor | None = None) -> None:
        from dltrain.layers.impl.residual_starts import zero_gains

        super().apply(model, seed)
        if images is None:
            raise ValueError("`zero_gamma` needs a batch of images")
        zero_gains(model, images)


class Fixup(Scaled):
    """Residual networks without norms: `he_normal`, times L^(-1 / (2 m - 2)) for the m layers of each of L branches,
    and 0 for a branch's last layer and the classifier.

    The norms give way to learned scalars: an offset, 0 at the start, before each convolution, linear layer and
    activation, and a factor, 1 at the start, at the end of each branch.
    """

    source = "https://arxiv.org/abs/1901.09321"
    fact = {(400, 200): 0.0, (48, 16, 3, 3): 0.0}
    needs_images = True
    without_norms = True
    name: Literal["fixup"] = "fixup"

    def variance(self, fan_in: int, fan_out: int) -> float:
        return 2 / fan_in

    def apply(self, model: nn.Module, seed: int, images: Tensor | None = None) -> None:
        from dltrain.layers.impl.residual_starts import scale_branches

        super().apply(model, seed)
        if images is None:
            raise ValueError("`fixup` needs a batch of images")
        scale_branches(model, images)


class LeCun(Scaled):
    """Variance 1 / fan in: what the activation `selu` needs to normalise itself."""

    source = "https://arxiv.org/abs/1706.02515"
    fact = {(400, 200): 0.070711, (48, 16, 3, 3): 0.083333}
    name: Literal["lecun_normal"] = "lecun_normal"

    def variance(self, fan_in: int, fan_out: int) -> float:
        return 1 / fan_in


class Orthogonal(Initialization):
    """A random matrix with orthogonal rows, or columns where there are more rows: times gain."""

    source = "https://arxiv.org/abs/1312.6120"
    fact = {(400, 200): 0.05, (48, 16, 3, 3): 0.083333}
    name: Literal["orthogonal"] = "orthogonal"
    gain: Positive = 1.0
    """Length of the rows or columns: sqrt(2) is usual for ReLU."""

    def draw(self, values: Tensor, layer: nn.Module, generator: torch.Generator) -> None:
        from torch.nn.init import orthogonal_

        orthogonal_(values, self.gain, generator)


class Dirac(Initialization):
    """Convolutions start as the identity, each output its input; linear layers stay as the network has them."""

    source = "https://arxiv.org/abs/1706.00388"
    fact = {(48, 16, 3, 3): 0.048113}
    name: Literal["dirac"] = "dirac"

    def apply(self, model: nn.Module, seed: int, images: Tensor | None = None) -> None:
        from torch.nn.modules.conv import _ConvNd

        from dltrain.layers.impl.initializations import draw_weights

        draw_weights(model, seed, self.draw, only=_ConvNd)

    def draw(self, values: Tensor, layer: nn.Module, generator: torch.Generator) -> None:
        from dltrain.layers.impl import initializations as initializing

        assert isinstance(layer, initializing.Weighted)
        initializing.dirac(values, layer)


class LSUV(Initialization):
    """Orthogonal, then layer by layer divided by the standard deviation of the outputs on a batch of images."""

    source = "https://arxiv.org/abs/1511.06422"
    fact = {(400, 200): 0.070711}
    needs_images = True
    name: Literal["lsuv"] = "lsuv"
    tolerance: Positive = 0.1
    """How far the variance of a layer's outputs may be from 1."""
    tries: PositiveInt = 10
    """Divisions of a layer at most."""

    def apply(self, model: nn.Module, seed: int, images: Tensor | None = None) -> None:
        from dltrain.layers.impl.initializations import unit_variance

        if images is None:
            raise ValueError("`lsuv` needs a batch of images")
        super().apply(model, seed)
        unit_variance(model, images, self.tolerance, self.tries)

    def draw(self, values: Tensor, layer: nn.Module, generator: torch.Generator) -> None:
        from torch.nn.init import orthogonal_

        orthogonal_(values, generator=generator)
