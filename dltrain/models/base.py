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
    """A network that turns images (B, C, H, W) into logits (B, K).

    `parameters` holds the published number of parameters for each name, image shape and number of
    classes: `{("lenet5", "1x28x28", 10): 61_706}`. The contract test requires it of our own networks.
    """

    kind: ClassVar[str] = "models"
    parameters: ClassVar[dict[tuple[str, str, int], int]] = {}

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        """The network with random (or pretrained) weights. Raises ConfigError when it cannot take `shape`."""
        raise NotImplementedError

    def preprocessing(self) -> Preprocessing | None:
        """What the pretrained weights expect, or None when the weights start random."""
        return None
