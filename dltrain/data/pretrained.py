"""What pretrained weights want of images: it travels with them from the libraries."""

from __future__ import annotations

from dataclasses import dataclass

from dltrain.data.types import Interpolation


@dataclass(frozen=True)
class PretrainedInputs:
    """What pretrained weights expect: mean and std per channel in 0..1, size, crop share, interpolation."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]
    crop: float
    interpolation: Interpolation
