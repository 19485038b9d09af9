"""Activations that are quotients of learned polynomials."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from dltrain.layers.activations import Activation, Start

if TYPE_CHECKING:
    from torch import Tensor


class Rational(Activation):
    """sum_j a_j P_j / Q with j from 0, all a and b learned, shared by the channels.

    `bound_terms` says which Q: 1 + sum_k |b_k P_k|, or 1 + |sum_k b_k P_k|, with k from 1. Neither has roots.
    """

    per_channel = False
    parameters = {64: 10}

    @abstractmethod
    def powers(self, x: Tensor, degree: int) -> list[Tensor]:
        """The polynomials P_0 to P_degree at x."""

    def bound_terms(self) -> bool:
        """Whether each term of the denominator is made positive by itself, rather than their sum."""
        return True

    def formula(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        powers = self.powers(x, max(len(a) - 1, len(b)))
        numerator = a[0] * powers[0]
        for factor, power in zip(a[1:].unbind(), powers[1:]):
            numerator = numerator + factor * power
        terms = [factor * power for factor, power in zip(b.unbind(), powers[1:])]
        if not self.bound_terms():
            return numerator / (1 + sum(terms[1:], terms[0]).abs())
        denominator = powers[0]
        for term in terms:
            denominator = denominator + term.abs()
        return numerator / denominator


class PadeUnit(Rational):
    """A rational function, the safe Pade activation unit: sum_j a_j x^j / (1 + |sum_k b_k x^k|), a and b learned.

    Degrees 5 and 4 as in the paper; one function is shared by all channels. Starts as our least-squares fit of
    `leaky_relu` on [-3, 3], which it meets to 0.034 there (0.03 with `denominator: terms`).
    """

    source = "https://arxiv.org/abs/1907.06732"
    fact = {0.0: 0.0336, 1.0: 1.000853, -1.0: -0.009152}
    variants = (
        ({"denominator": "terms"}, {0.0: 0.0298, 1.0: 1.000801, -1.0: -0.010654}),
        ({"a": [0.0, 1.0], "b": [1.0, -1.0]}, {2.0: 2 / 3, -2.0: -2 / 7}),
        ({"a": [0.0, 1.0], "b": [1.0, -1.0], "denominator": "terms"}, {2.0: 2 / 7, -2.0: -2 / 7}),
        ({"a": [0.0, 1.0], "b": [0.0]}, {-7.0: -7.0, 3.0: 3.0}),
    )
    name: Literal["pau"] = "pau"
    denominator: Literal["sum", "terms"] = "sum"
    """`sum`: 1 + |sum_k b_k x^k|, the safe PAU of the published paper (ICLR 2020); version B of the authors' package
    rational_activations. `terms`: 1 + sum_k |b_k| |x|^k, of its first preprint; version A there."""
    a: Annotated[list[float], Field(min_length=1)] | None = None
    """Coefficients of the numerator at the start, from that of x^0 on; their number sets its degree. Null: our fit."""
    b: Annotated[list[float], Field(min_length=1)] | None = None
    """Coefficients of the denominator at the start, from that of x^1 on. Null: our fit."""

    def bound_terms(self) -> bool:
        return self.denominator == "terms"

    def learned(self) -> dict[str, Start]:
        a, b = FITS[self.denominator]
        return {"a": self.a or a, "b": self.b or b}

    def powers(self, x: Tensor, degree: int) -> list[Tensor]:
        powers = [x.new_ones(())]
        for _ in range(degree):
            powers.append(powers[-1] * x)
        return powers


FITS = {
    "sum": ([0.0336, 0.505, 1.6527, 2.0081, 0.9306, 0.1521], [0.0, 3.9764, 0.0, 0.3012]),
    "terms": ([0.0298, 0.6184, 2.3218, 3.0476, 1.4822, 0.2503], [1.1413, 4.3868, 0.8696, 0.3462]),
}
"""Numerator and denominator of our least-squares fits of `leaky_relu` on [-3, 3]."""


class OrthogonalPadeUnit(Rational):
    """A rational function in Hermite polynomials: sum_j c_j H_j / (1 + sum_k |d_k| |H_k|), c and d learned.

    H_j are the physicists' polynomials: 1, 2x, 4x^2 - 2, and H_{j+1} = 2x H_j - 2j H_{j-1}. Degrees 5 and 4; one
    function is shared by all channels. Starts as our least-squares fit of `leaky_relu`, met to 0.07 on [-3, 3]. The
    coefficients of high order are small and their gradients large: set `training.clip_norm` and a small rate.
    """

    source = "https://arxiv.org/abs/2106.09693"
    fact = {0.0: 0.069528, 1.0: 0.990851, -1.0: 0.002712}
    variants = (({"c": [0.0, 0.5], "d": [0.0]}, {-7.0: -7.0, 3.0: 3.0}),)
    name: Literal["opau"] = "opau"
    c: Annotated[list[float], Field(min_length=1)] = [3.5722, 4.2518, 2.0316, 0.5101, 0.0576, 0.0019]
    """Coefficients of the numerator at the start, from that of H_0 on; their number sets its degree."""
    d: Annotated[list[float], Field(min_length=1)] = [4.8903, 0.8893, 0.0809, 0.0084]
    """Coefficients of the denominator at the start, from that of H_1 on."""

    def learned(self) -> dict[str, Start]:
        return {"a": self.c, "b": self.d}

    def powers(self, x: Tensor, degree: int) -> list[Tensor]:
        powers = [x.new_ones(()), 2 * x]
        for order in range(1, degree):
            powers.append(2 * x * powers[-1] - 2 * order * powers[-2])
        return powers
