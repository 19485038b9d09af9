"""Activations with learned parameters, each a function of its input alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from dltrain.config import NonNegativeInt, Positive, PositiveInt, reject
from dltrain.layers.activations import Activation, Start

if TYPE_CHECKING:
    from torch import Tensor, nn


class Swish(Activation):
    """x sigmoid(b x) with a b that is learned for each channel: `silu` at b = 1, x / 2 at 0, nearly ReLU at large b."""

    source = "https://arxiv.org/abs/1710.05941"
    fact = {1.0: 0.731059, -1.27846: -0.278465}
    variants = (({"beta": 0.0}, {-3.0: -1.5, 1.0: 0.5}), ({"beta": 50.0}, {-1.0: 0.0, 2.0: 2.0}))
    parameters = {64: 64}
    name: Literal["swish", "acon_a"] = "swish"
    beta: float = 1.0
    """b at the start."""

    def learned(self) -> dict[str, Start]:
        return {"beta": self.beta}

    def formula(self, x: Tensor, beta: Tensor) -> Tensor:
        return x * (beta * x).sigmoid()


class AconB(Activation):
    """(1 - p) x sigmoid(b (1 - p) x) + p x: a smooth max(x, p x), with p and b learned for each channel."""

    source = "https://arxiv.org/abs/2009.04759"
    fact = {1.0: 0.759384, -1.0: -0.490616}
    variants = (({"p": 0.0}, {1.0: 0.731059, -1.27846: -0.278465}),)
    parameters = {64: 128}
    name: Literal["acon_b"] = "acon_b"
    p: float = 0.25
    """p at the start."""
    beta: float = 1.0
    """b at the start."""

    def learned(self) -> dict[str, Start]:
        return {"p": self.p, "beta": self.beta}

    def formula(self, x: Tensor, p: Tensor, beta: Tensor) -> Tensor:
        return acon(x, 1.0, p, beta)


class AconC(Activation):
    """(p1 - p2) x sigmoid(b (p1 - p2) x) + p2 x: a smooth max(p1 x, p2 x), all three learned for each channel."""

    source = "https://arxiv.org/abs/2009.04759"
    variants = (
        ({"p1": 1.2, "p2": -0.8}, {1.0: 0.961594, -1.0: 0.561594, 50.0: 60.0, -50.0: 40.0}),
        ({"p1": 1.0, "p2": 0.25}, {1.0: 0.759384, -1.0: -0.490616}),
    )
    parameters = {64: 192}
    name: Literal["acon_c"] = "acon_c"
    p1: float | None = None
    """The slope towards +infinity (for b > 0) at the start; null draws one from N(0, 1) for each channel."""
    p2: float | None = None
    """The slope towards -infinity at the start; null draws it likewise."""
    beta: float = 1.0
    """b at the start."""

    def learned(self) -> dict[str, Start]:
        return {"p1": self.p1, "p2": self.p2, "beta": self.beta}

    def formula(self, x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> Tensor:
        return acon(x, p1, p2, beta)


def acon(x: Tensor, p1: Tensor | float, p2: Tensor, beta: Tensor) -> Tensor:
    """The smooth maximum of p1 x and p2 x, that sharpens as beta grows."""
    difference = (p1 - p2) * x
    return difference * (beta * difference).sigmoid() + p2 * x


class AdaptivePiecewiseLinear(Activation):
    """max(0, x) + sum_s a_s max(0, b_s - x), with hinges at b_s, all learned for each channel.

    Starts as ReLU: a = 0, and b spread over [-1, 1] (our choice).
    """

    source = "https://arxiv.org/abs/1412.6830"
    fact = {-2.0: 0.0, 3.0: 3.0}
    variants = (({"hinges": 1, "a": -0.01}, {-2.0: -0.02, 3.0: 3.0}),)
    parameters = {64: 256}
    name: Literal["apl"] = "apl"
    hinges: PositiveInt = 2
    """How many: S."""
    a: float = 0.0
    """Every a at the start; with one hinge, -0.01 is `leaky_relu`."""

    def learned(self) -> dict[str, Start]:
        steps = range(1 - self.hinges, self.hinges, 2)
        return {"a": [self.a] * self.hinges, "b": [step / max(self.hinges - 1, 1) for step in steps]}

    def formula(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        out = x.clamp(min=0)
        for slope, hinge in zip(a.unbind(), b.unbind()):
            out = out + slope * (hinge - x).clamp(min=0)
        return out


class SAU(Activation):
    """`leaky_relu` smoothed by a Gaussian: g (1-a) / sqrt(2 pi) exp(-x^2 / 2g^2) + (1+a) x / 2 + (1-a) x / 2
    erf(x / g sqrt(2)).

    The slope a is learned, shared by all channels; the width g is fixed.
    """

    source = "https://arxiv.org/abs/2109.13210"
    fact = {-2.0: -0.3, 0.0: 0.000017, 3.0: 3.0}
    variants = (({"width": 1.0}, {0.0: 0.339101, 1.0: 1.070818, -1.0: -0.079182}),)
    parameters = {64: 1}
    per_channel = False
    name: Literal["sau"] = "sau"
    slope: float = 0.15
    """Slope for x < 0 at the start: a."""
    width: Positive = 5e-5
    """Standard deviation of the Gaussian: g."""

    def learned(self) -> dict[str, Start]:
        return {"slope": self.slope}

    def formula(self, x: Tensor, slope: Tensor) -> Tensor:
        z = (x / self.width).clamp(-12, 12)  # beyond, the Gaussian is below 1e-31 and its exponential slow
        bump = (-(z**2) / 2).exp() * (self.width / math.sqrt(2 * math.pi))
        relu = bump + x * (1 + (z / math.sqrt(2)).erf()) / 2  # smoothed
        return relu + slope * (x - relu)


class SMU(Activation):
    """A smooth max(x, a x): ((1 + a) x + (1 - a) x erf(m (1 - a) x)) / 2.

    The sharpness m is learned, shared by all channels. The first version of the paper has slope 0.25 and sharpness
    1e6, where no gradient reaches m; our defaults are those of a later one.
    """

    source = "https://arxiv.org/abs/2111.04682"
    fact = {1.0: 0.99977, -1.0: -0.01023}
    variants = (
        ({"slope": 0.25, "sharpness": 1.0}, {1.0: 0.891683, -1.0: -0.358317}),
        ({"slope": 0.0, "sharpness": math.sqrt(0.5)}, {1.0: 0.841345, -0.7518: -0.169971}),
    )
    parameters = {64: 1}
    per_channel = False
    name: Literal["smu"] = "smu"
    slope: float = 0.01
    """Slope towards -infinity: a."""
    sharpness: float = 2.5
    """m at the start: larger values come closer to `leaky_relu`; with slope 0, sqrt(1/2) is `gelu`."""

    def learned(self) -> dict[str, Start]:
        return {"sharpness": self.sharpness}

    def formula(self, x: Tensor, sharpness: Tensor) -> Tensor:
        difference = (1 - self.slope) * x
        return ((1 + self.slope) * x + difference * (sharpness * difference).erf()) / 2


class SMU1(Activation):
    """A smooth max(x, a x): ((1 + a) x + sqrt(((1 - a) x)^2 + m^2)) / 2, with m learned, shared by all channels."""

    source = "https://arxiv.org/abs/2111.04682"
    fact = {0.0: 0.0, 2.0: 2.0, -2.0: -0.5}
    variants = (({"smoothness": 1.0}, {0.0: 0.5}),)
    parameters = {64: 1}
    per_channel = False
    name: Literal["smu1"] = "smu1"
    slope: float = 0.25
    """Slope towards -infinity: a."""
    smoothness: float = 4.3527e-9
    """m at the start: at 0 it is `leaky_relu`."""

    def learned(self) -> dict[str, Start]:
        return {"smoothness": self.smoothness}

    def formula(self, x: Tensor, smoothness: Tensor) -> Tensor:
        squares = ((1 - self.slope) * x) ** 2 + smoothness**2
        return ((1 + self.slope) * x + squares.clamp(min=1e-36).sqrt()) / 2  # the root has no gradient at 0


class PWLU(Activation):
    """Equal pieces between two learned ends with learned values at the knots, and a learned slope beyond each end.

    A first phase keeps it a ReLU and measures its inputs; then the ends are set at their mean -+ 3 standard
    deviations, the values to ReLU's, and all learns. An end never crosses the other.
    """

    source = "https://arxiv.org/abs/2104.03693"
    fact = {-2.0: 0.0, 0.0: 0.0, 1.7: 1.7, 5.0: 5.0}
    parameters = {64: 21}
    name: Literal["pwlu"] = "pwlu"
    pieces: Annotated[int, Field(ge=2)] = 16
    """Number of pieces: an even number, so that ReLU's corner is a knot at the start."""
    per: Literal["layer", "channel"] = "layer"
    """Whether all channels share one function or each has its own."""
    statistics_steps: NonNegativeInt = 1_000
    """Training steps of the first phase. The paper takes 5 epochs; shorten it with the training."""

    @model_validator(mode="after")
    def _even(self) -> PWLU:
        if self.pieces % 2:
            raise reject("pieces", f"`pieces` must be even, not {self.pieces}")
        return self

    def build(self, channels: int) -> nn.Module:
        from dltrain.layers.impl.activations import PiecewiseLinear

        return PiecewiseLinear(channels if self.per == "channel" else None, self.pieces, self.statistics_steps)


class Maxout(Activation):
    """The greatest of k affine maps of a pixel's channels: max_k (W_k x + b_k).

    After a convolution that is the greatest of k convolutions. It holds k C (C + 1) weights, initialised and decayed
    as those of a layer.
    """

    source = "https://arxiv.org/abs/1302.4389"
    fact = {0.0: 0.0}
    parameters = {64: 8_320}
    name: Literal["maxout"] = "maxout"
    pieces: PositiveInt = 2
    """How many maps: k. One is an affine map without any bend."""

    def build(self, channels: int) -> nn.Module:
        from dltrain.layers.impl.activations import Maxout

        return Maxout(channels, self.pieces)
