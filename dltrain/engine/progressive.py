"""Training on images that grow: from `training.progressive_size` to what the pipeline does to a step's images.

Imports torch: import it where a training is built.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from dltrain.data.types import ImageShape, InputSpec, require_images
from dltrain.experiment.experiment import Experiment
from dltrain.experiment.training import Size
from dltrain.layers.impl.probe import probe


@dataclass(frozen=True)
class Resizing:
    """The images of a step at the size that this step has; bilinear, and smoothed against aliasing."""

    shape: ImageShape
    """Of the images that come."""
    sizes: list[Size]

    def __call__(self, images: Tensor, step: int) -> Tensor:
        """(B, C, H, W) float to (B, C, h, w)."""
        _, *size = self.sizes[bisect_right(self.sizes, step, key=lambda size: size[0]) - 1]
        if size == [self.shape.height, self.shape.width]:
            return images
        return F.interpolate(images, size, mode="bilinear", antialias=True)

    @property
    def smallest(self) -> ImageShape:
        """Of the images that the network sees first."""
        _, height, width = self.sizes[0]
        return replace(self.shape, height=height, width=width)

    def __str__(self) -> str:
        return ", ".join(f"{h}x{w}" + (f" from step {step:,}" if step else "") for step, h, w in self.sizes)


def progressive_size(experiment: Experiment, network: nn.Module, inputs: InputSpec, steps: int) -> Resizing | None:
    """How the images of a training of `steps` steps grow to `inputs`; None when they do not.

    Raises ConfigError when the network cannot take one of the sizes.
    """
    section = experiment.training.progressive_size
    if section is None:
        return None
    shape = require_images(inputs, "`progressive_size`")
    resizing = Resizing(shape, section.sizes(shape.height, shape.width, steps))
    for _, height, width in resizing.sizes[:-1]:
        problem = _problem(network, replace(shape, height=height, width=width))
        if problem is None:
            continue
        if _problem(network, shape) is not None:  # it cannot be run without numbers: its first step will tell
            break
        message = f"`{experiment.model.name}` cannot be trained on images of {height}x{width}: {problem}"
        notes = ("a larger `start`, or a network that takes images of any size",)
        raise experiment.error("training.progressive_size", message, *notes)
    return resizing


def _problem(network: nn.Module, shape: ImageShape) -> str | None:
    """What the network raises for images of `shape`, on one line."""
    try:
        probe(network, shape)
    except Exception as error:  # libraries raise whatever they meet first
        return (str(error).splitlines() or [type(error).__name__])[0]
    return None
