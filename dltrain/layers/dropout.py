"""DropBlock, as a section: dropout of squares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import field_validator

from dltrain.config import Fraction, NonNegativeInt, PositiveInt, Section, reject

if TYPE_CHECKING:
    from torch import nn


class DropBlock(Section):
    """Zeroes squares of the maps in training, with seeds of gamma = rate / size^2 H W / ((H - size + 1)(W - size + 1)),
    and scales what is left so that the mean stays (https://arxiv.org/abs/1810.12890).
    """

    rate: Fraction = 0.1
    """Share of the values zeroed, about."""
    size: PositiveInt = 7
    """Height and width of a square: an odd number; smaller maps take the greatest odd one that fits."""
    ramp: NonNegativeInt = 0
    """Training steps over which the rate grows from 0, in a straight line; 0 for the full rate from the start."""

    @field_validator("size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise reject("size", f"`size` must be odd, so that a square has a middle, not {value}")
        return value

    def build(self) -> nn.Module:
        """The layer for maps (B, C, H, W)."""
        from dltrain.layers.impl.dropout import DropBlock

        return DropBlock(self.rate, self.size, self.ramp)
