"""Activations that squash, shrink or gate: sigmoids, their piecewise linear forms, thresholds, and x times a gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dltrain.config import NonNegative, Positive
from dltrain.layers.activations import Activation

if TYPE_CHECKING:
    from torch import Tensor, nn


class Step(Activation):
    """1 for x > 0, else 0: the perceptron's.

    Its gradient is 0, so that what comes before it does not learn: for weights that are set by hand.
    """

    source = "Rosenblatt 1958"
    fact = {0.0: 0.0, 0.1: 1.0, -3.0: 0.0}
    trains = False
    name: Literal["step"] = "step"

    def formula(self, x: Tensor) -> Tensor:
        return x.clamp(min=0).sign()  # unlike a comparison, a part of the graph


class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    fact = {0.0: 0.5, 1.0: 0.731059}
    name: Literal["sigmoid"] = "sigmoid"

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.Sigmoid()


class HardSigmoid(Activation):
    """slope x + 1/2, clipped to [0, 1]."""

    source = "https://arxiv.org/abs/1905.02244"
    fact = {1.0: 0.666667, -4.0: 0.0}
    variants = (({"slope": 0.5}, {1.0: 1.0, -0.5: 0.25}), ({"slope": 0.2}, {1.0: 0.7}))
    name: Literal["hard_sigmoid"] = "hard_sigmoid"
    slope: Positive = 1 / 6
    """The slope at 0: 1/6 of MobileNetV3, 0.5 of binary networks (arXiv 1511.00363), or 0.2 of Keras 2."""

    def formula(self, x: Tensor) -> Tensor:
        return (self.slope * x + 0.5).clamp(0, 1)


class LogSigmoid(Activation):
    """log sigmoid(x)."""

    fact = {0.0: -0.693147, 1.0: -0.313262}
    name: Literal["log_sigmoid"] = "log_sigmoid"

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.LogSigmoid()


class Tanh(Activation):
    """The hyperbolic tangent."""

    fact = {1.0: 0.761594, -1.0: -0.761594}
    name: Literal["tanh"] = "tanh"

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.Tanh()


class HardTanh(Activation):
    """x, clipped to [-1, 1]."""

    fact = {3.0: 1.0, -0.5: -0.5}
    name: Literal["hard_tanh"] = "hard_tanh"

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.Hardtanh()


class TanhShrink(Activation):
    """x - tanh(x)."""

    fact = {1.0: 0.238406, -1.0: -0.238406}
    name: Literal["tanhshrink"] = "tanhshrink"

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.Tanhshrink()


class Softsign(Activation):
    """x / (1 + |x|)."""

    fact = {1.0: 0.5, -3.0: -0.75}
    name: Literal["softsign"] = "softsign"

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.Softsign()


class HardShrink(Activation):
    """x outside [-width, width], else 0."""

    fact = {0.4: 0.0, 1.0: 1.0}
    name: Literal["hardshrink"] = "hardshrink"
    width: NonNegative = 0.5
    """Inputs up to this magnitude give 0."""

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.Hardshrink(self.width)


class SoftShrink(Activation):
    """x moved towards 0 by width, and 0 within [-width, width]."""

    fact = {0.4: 0.0, 1.0: 0.5, -2.0: -1.5}
    name: Literal["softshrink"] = "softshrink"
    width: NonNegative = 0.5
    """How far inputs move towards 0."""

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.Softshrink(self.width)


class Threshold(Activation):
    """x above the threshold, else a constant."""

    fact = {-0.1: 0.0, 0.2: 0.2}
    name: Literal["threshold"] = "threshold"
    threshold: float = 0.0
    """Inputs above it pass."""
    value: float = 0.0
    """What the others become."""

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        return nn.Threshold(self.threshold, self.value)


class ELiSH(Activation):
    """elu(x) sigmoid(x): `silu` for x >= 0, (exp(x) - 1) sigmoid(x) below."""

    source = "https://arxiv.org/abs/1808.00783"
    fact = {-1.0: -0.170003, 1.0: 0.731059}
    name: Literal["elish"] = "elish"

    def formula(self, x: Tensor) -> Tensor:
        return elu(x) * x.sigmoid()


class HardELiSH(Activation):
    """elu(x) times (x + 1) / 2 clipped to [0, 1]: x from 1 on, 0 up to -1."""

    source = "https://arxiv.org/abs/1808.00783"
    fact = {-0.5: -0.098367, 0.5: 0.375, 3.0: 3.0, -2.0: 0.0}
    name: Literal["hard_elish"] = "hard_elish"

    def formula(self, x: Tensor) -> Tensor:
        return elu(x) * ((x + 1) / 2).clamp(0, 1)


def elu(x: Tensor) -> Tensor:
    """x for x > 0, else exp(x) - 1."""
    return x.where(x > 0, x.clamp(max=0).expm1())
