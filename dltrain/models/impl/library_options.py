"""What an experiment wants of a library's network, as far as the library's constructors are concerned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Wishes:
    """`label` is the network's name in messages; `stem` changes the stem of a new network, or returns it as it is;
    `auxiliary` asks for the auxiliary heads, `exchangeable` for a form whose activations are modules of their own, each
    for one place.
    """

    label: str = ""
    pretrained: bool = False
    dropout: float | None = None
    drop_path: float | None = None
    stem: Callable[[nn.Module], nn.Module] = lambda network: network
    exchangeable: bool = False
    auxiliary: bool = False
