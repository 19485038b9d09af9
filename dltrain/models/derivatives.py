"""Activations whose derivative follows from their value: what a contractive penalty needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BY_VALUE: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda h: h.new_ones(()),
    "sigmoid": lambda h: h * (1 - h),
    "tanh": lambda h: 1 - h.square(),
    "relu": lambda h: (h > 0).to(h.dtype),
    "softplus": lambda h: -(-h).expm1(),
}
"""f'(x) as a function of h = f(x), by the name of the activation with its usual options."""
