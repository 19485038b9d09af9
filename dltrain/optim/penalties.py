"""What training adds to the loss, or does to the weights, to keep them small."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import field_validator

from dltrain.config import Choice, Positive, Probability
from dltrain.optim.exemptions import known_words

if TYPE_CHECKING:
    from torch import Tensor


class Penalty(Choice):
    """What keeps the weights small: a term of the loss, or a bound on the weights after each step.

    The reported losses are without penalties, to compare them. `fact` is the penalty of one unit's weights
    (3, -4) with `example` for options, or for a bound their norm after it: the contract test requires it.
    """

    kind: ClassVar[str] = "penalties"
    example: ClassVar[dict[str, float]] = {"strength": 1.0}
    fact: ClassVar[float | None] = None

    exempt: list[str] = ["bias", "norm", "activation"]
    """Parameters that it leaves alone: `bias`, `norm`, `activation`, or patterns of names, as in `no_decay`."""

    @field_validator("exempt")
    @classmethod
    def _no_misspelt_word(cls, words: list[str]) -> list[str]:
        return known_words("exempt", words)

    def value(self, weight: Tensor) -> Tensor | None:
        """The term of the loss for one weight, a scalar; None for a bound."""
        return None

    def bound(self, weight: Tensor) -> None:
        """Change one weight in place after a step."""


class L1(Penalty):
    """The loss plus strength * sum |w|: drives weights to exactly 0."""

    source = "https://doi.org/10.1111/j.2517-6161.1996.tb02080.x"
    fact = 7.0
    name: Literal["l1"] = "l1"
    strength: Positive
    """Factor of the sum; 1e-5 is a start."""

    def value(self, weight: Tensor) -> Tensor:
        return self.strength * weight.abs().sum()


class L2(Penalty):
    """The loss plus strength / 2 * sum w^2. With SGD it is weight decay; with Adam it is weaker than that."""

    source = "https://doi.org/10.1080/00401706.1970.10488634"
    fact = 12.5
    name: Literal["l2"] = "l2"
    strength: Positive
    """Factor of half the sum of squares; 1e-4 is a start."""

    def value(self, weight: Tensor) -> Tensor:
        return 0.5 * self.strength * weight.square().sum()


class ElasticNet(Penalty):
    """The loss plus strength * (ratio * sum |w| + (1 - ratio) / 2 * sum w^2): between `l2` (0) and `l1` (1)."""

    source = "https://doi.org/10.1111/j.1467-9868.2005.00503.x"
    fact = 9.75
    name: Literal["elastic_net"] = "elastic_net"
    strength: Positive
    """Factor of the whole."""
    ratio: Probability = 0.5
    """Share of L1."""

    def value(self, weight: Tensor) -> Tensor:
        half_squares = 0.5 * weight.square().sum()
        return self.strength * (self.ratio * weight.abs().sum() + (1 - self.ratio) * half_squares)


class MaxNorm(Penalty):
    """A bound: the incoming weights of each unit (of each output of a convolution) are scaled to a norm <= limit."""

    source = "https://jmlr.org/papers/v15/srivastava14a.html"
    example = {"limit": 3.0}
    fact = 3.0
    name: Literal["max_norm"] = "max_norm"
    limit: Positive = 3.0
    """Largest Euclidean norm of a unit's weights; 3 to 4 is usual."""

    def bound(self, weight: Tensor) -> None:
        if weight.ndim > 1:
            weight.renorm_(2, 0, self.limit)
