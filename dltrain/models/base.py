"""The kind `Model`: a section that builds a network for given images and classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dltrain.config import Choice
from dltrain.data.base import ImageShape, Interpolation

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Preprocessing:
    """What pretrained weights expect: mean and std per channel in 0..1, size, crop share, interpolation."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]
    crop: float
    interpolation: Interpolation


class Model(Choice):
    """A network that turns images (B, C, H, W) into logits (B, K)."""

    kind: ClassVar[str] = "models"

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        """The network with random (or pretrained) weights. Raises ConfigError when it cannot take `shape`."""
        raise NotImplementedError

    def preprocessing(self) -> Preprocessing | None:
        """What the pretrained weights expect, or None when the weights start random."""
        return None
