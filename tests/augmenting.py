"""What the tests of augmentations share: images, batches, and one augmentation run on them."""

from typing import Any

import torch
from torch import Tensor

from dltrain.data.augmentation import catalogue as augmentations  # noqa: F401  completes the catalogue
from dltrain.data.augmentation.base import Augmentation, AugmentationContext
from dltrain.data.random import Draws
from dltrain.data.types import Batch, ImageShape

CPU = torch.device("cpu")
SHAPES = {"rgb": ImageShape(3, 16, 16), "grey": ImageShape(1, 16, 16), "wide": ImageShape(3, 12, 18)}


def context(shape: ImageShape, seed: int = 0, **changes: Any) -> AugmentationContext:
    channels = shape.channels
    spread = torch.eye(channels) * 0.06 + 0.01
    return AugmentationContext(
        shape, 10, seed, torch.zeros(channels), torch.ones(channels), **{"covariance": spread, **changes}
    )


def pictures(count: int, shape: ImageShape, seed: int = 0) -> Tensor:
    """Smooth uint8 images, all different."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, shape.channels, 4, 4, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (shape.height, shape.width), mode="bilinear") * 255
    return (fine + torch.rand(fine.shape, generator=generator) * 20).clamp(0, 255).to(torch.uint8)


def batch_of(images: Tensor, epoch: int = 0) -> Batch:
    count = len(images)
    return Batch(images, torch.arange(count) % 10, torch.arange(count) + 100, torch.full((count,), epoch))


def run(entry: Augmentation, images: Tensor, step: int = 0, seed: int = 0, **changes: Any) -> Batch:
    shape = ImageShape(*images.shape[1:])
    return entry.build(context(shape, **changes))(batch_of(images, epoch=step), Draws(seed, step, CPU))


def entry_of(name: str) -> Augmentation:
    strong = {
        "random_erasing": {"probability": 1.0, "area": [0.1, 0.3]},
        "cutout": {"size": 6},
        "grayscale": {"probability": 0.5},
    }
    return Augmentation.parse({"name": name, **strong.get(name, {})})
