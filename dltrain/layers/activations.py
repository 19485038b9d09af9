"""The kind `Activation`, and those that torch has.

Never in place: in-place forms change what a residual branch or a hook sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from dltrain.config import Choice, NonNegative, Positive, reject

if TYPE_CHECKING:
    from torch import Tensor, nn

Start = float | list[float] | None
"""What a learned parameter is at the start."""


class Activation(Choice):
    """A function between layers, applied to (B, C) or (B, C, H, W).

    An entry gives its `formula`, and `learned` parameters if it has any, or overrides `build`.
    What the contract test checks: `fact` holds values that define the entry, as built with its defaults, in
    evaluation mode (input -> output, to 1e-5), `variants` those with other options; one of them is required.
    `parameters` is how many it has: for {64: 128}, 128 with 64 channels. `trains` says that a gradient passes.
    """

    kind: ClassVar[str] = "activations"
    fact: ClassVar[dict[float, float]] = {}
    variants: ClassVar[tuple[tuple[dict[str, Any], dict[float, float]], ...]] = ()
    parameters: ClassVar[dict[int, int]] = {}
    trains: ClassVar[bool] = True
    needs_maps: ClassVar[bool] = False
    """Whether it takes only (B, C, H, W)."""
    per_channel: ClassVar[bool] = True
    """Whether each channel learns parameters of its own; else all channels share them."""

    def learned(self) -> dict[str, Start]:
        """The parameters that `formula` takes, each with its start: a value, a list of them, or None for N(0, 1)."""
        return {}

    def formula(self, x: Tensor, *_: Any, **parameters: Any) -> Tensor:
        """The function. `x` is float32 or wider; a parameter broadcasts to it, a list is unpacked over dimension 0."""
        raise TypeError(f"{type(self).__name__} has neither a `formula` nor a `build`")

    def build(self, channels: int) -> nn.Module:
        """The layer for inputs with `channels` channels (dimension 1); one layer per place of use."""
        from dltrain.layers.impl.activations import Formula

        return Formula(self.formula, self.learned(), channels if self.per_channel else None)

    def build_for_vectors(self, channels: int) -> nn.Module:
        """The layer for (B, C) among convolutional layers: one that needs maps takes maps of one pixel."""
        if not self.needs_maps:
            return self.build(channels)
        from dltrain.layers.impl.modules import OnVectors

        return OnVectors(self.build(channels))


class Identity(Activation):
    """x: no activation."""

    fact = {-1.5: -1.5, 2.0: 2.0}
    name: Literal["identity"] = "identity"

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.Identity()


class ReLU(Activation):
    """max(x, 0)."""

    source = "Nair & Hinton 2010"
    fact = {-2.0: 0.0, 3.0: 3.0}
    name: Literal["relu"] = "relu"

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.ReLU()


class ReLU6(Activation):
    """min(max(x, 0), 6)."""

    fact = {-2.0: 0.0, 3.0: 3.0, 9.0: 6.0}
    name: Literal["relu6"] = "relu6"

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.ReLU6()


class LeakyReLU(Activation):
    """max(x, slope x)."""

    source = "Maas et al. 2013"
    fact = {-2.0: -0.02, 3.0: 3.0}
    name: Literal["leaky_relu"] = "leaky_relu"
    slope: NonNegative = 0.01
    """Slope for x < 0."""

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.LeakyReLU(self.slope)


class PReLU(Activation):
    """max(x, slope x) with a slope that is learned for each channel."""

    source = "https://arxiv.org/abs/1502.01852"
    fact = {-2.0: -0.5, 3.0: 3.0}
    variants = (({"slope": 0.0}, {-2.0: 0.0, 3.0: 3.0}),)
    parameters = {64: 64}
    name: Literal["prelu"] = "prelu"
    slope: NonNegative = 0.25
    """Slope for x < 0 at the start."""

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.PReLU(channels, init=self.slope)


class RReLU(Activation):
    """max(x, slope x) with a slope drawn from [low, high] in training, their mean in evaluation."""

    source = "https://arxiv.org/abs/1505.00853"
    fact = {-1.0: -0.229167, 3.0: 3.0}
    name: Literal["rrelu"] = "rrelu"
    low: NonNegative = 0.125
    """Least slope for x < 0."""
    high: NonNegative = 1 / 3
    """Greatest slope for x < 0."""

    @model_validator(mode="after")
    def _ordered(self) -> RReLU:
        if self.low > self.high:
            raise reject("low", f"`low` ({self.low:g}) must not be above `high` ({self.high:g})")
        return self

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.RReLU(self.low, self.high)


class ELU(Activation):
    """x for x > 0, else alpha (exp(x) - 1)."""

    source = "https://arxiv.org/abs/1511.07289"
    fact = {-1.0: -0.632121, 2.0: 2.0}
    name: Literal["elu"] = "elu"
    alpha: Positive = 1.0
    """Minus the limit towards -infinity."""

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.ELU(self.alpha)


class CELU(Activation):
    """max(x, 0) + min(0, alpha (exp(x / alpha) - 1)): an ELU with slope 1 at 0 for every alpha."""

    source = "https://arxiv.org/abs/1704.07483"
    fact = {-1.0: -0.632121, 2.0: 2.0}
    variants = (({"alpha": 2.0}, {-1.0: -0.786939, 2.0: 2.0}),)
    name: Literal["celu"] = "celu"
    alpha: Positive = 1.0
    """Minus the limit towards -infinity."""

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.CELU(self.alpha)


class SELU(Activation):
    """An ELU scaled so that mean 0 and variance 1 are kept from layer to layer."""

    source = "https://arxiv.org/abs/1706.02515"
    fact = {-1.0: -1.111331, 1.0: 1.050701}
    name: Literal["selu"] = "selu"

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.SELU()


class GELU(Activation):
    """x P(X <= x) for a standard normal X."""

    source = "https://arxiv.org/abs/1606.08415"
    fact = {1.0: 0.841345, -0.7518: -0.169971}
    variants = (({"approximation": "tanh"}, {1.0: 0.841192}),)
    name: Literal["gelu"] = "gelu"
    approximation: Literal["none", "tanh"] = "none"
    """`tanh` computes the published approximation: 0.841192 at 1."""

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.GELU(self.approximation)


class SiLU(Activation):
    """x sigmoid(x), also called Swish."""

    source = "https://arxiv.org/abs/1710.05941"
    fact = {1.0: 0.731059, -1.27846: -0.278465}
    name: Literal["silu"] = "silu"

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.SiLU()


class HardSwish(Activation):
    """x relu6(x + 3) / 6."""

    source = "https://arxiv.org/abs/1905.02244"
    fact = {-1.0: -0.333333, 3.0: 3.0, -3.0: 0.0}
    name: Literal["hard_swish"] = "hard_swish"

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.Hardswish()


class Mish(Activation):
    """x tanh(softplus(x))."""

    source = "https://arxiv.org/abs/1908.08681"
    fact = {1.0: 0.865098, -1.1924: -0.308843}
    name: Literal["mish"] = "mish"

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.Mish()


class Softplus(Activation):
    """log(1 + exp(sharpness x)) / sharpness: a smooth ReLU."""

    source = "Dugas et al. 2001"
    fact = {0.0: 0.693147, 1.0: 1.313262}
    name: Literal["softplus"] = "softplus"
    sharpness: Positive = 1.0
    """Larger values come closer to ReLU."""

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.Softplus(self.sharpness)
