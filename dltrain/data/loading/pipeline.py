"""From a batch of the loader to what the model sees: augmentation, scaling, targets.

    batch -> pixel stage -> scaling -> scaled stage -> one of the mixing augmentations -> resize -> (inputs, targets)

Evaluation takes the scaling alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from dltrain.data.augmentation.base import STAGES, Augmentation, AugmentationContext, Transform
from dltrain.data.augmentation.impl.geometry import Motion, Rearrange, ResizedCrop, rearrange
from dltrain.data.loading.resources import one_thread
from dltrain.data.random import Draws, derive_seed
from dltrain.data.types import WHOLE, Batch, Share


class ScalingOnDevice(Protocol):
    """Values 0..255 to what the model takes."""

    def apply(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 or float32 in 0..255 to float32."""

    def invert(self, scaled: Tensor) -> Tensor:
        """The way back, to float32 in 0..255."""


@dataclass(frozen=True)
class Drawn:
    """A transform with a stream of draws of its own."""

    transform: Transform
    seed: int
    share: Share

    def __call__(self, batch: Batch, step: int) -> Batch:
        return self.transform(batch, _draws(self.seed, step, batch, self.share))


@dataclass(frozen=True)
class Moves:
    """Neighbours that only move whole pixels, joined: one gather does them all, with the same result."""

    parts: list[tuple[Rearrange, int]]
    """Each with the seed of its draws."""
    share: Share

    def drawn(self, step: int, device: torch.device, count: int) -> list[Tensor]:
        """What each of them draws for the `count` examples of a step, the last dimension."""
        return [move.draw(Draws(seed, step, device, count, self.share), count) for move, seed in self.parts]

    def motions(self, batch: Batch, drawn: Sequence[Tensor]) -> list[Motion]:
        """What each of them does to the rows and columns of a batch, which may be those of several steps."""
        return [move.motion(batch, own) for (move, _), own in zip(self.parts, drawn, strict=True)]

    def __call__(self, batch: Batch, step: int) -> Batch:
        return rearrange(batch, self.motions(batch, self.drawn(step, batch.inputs.device, len(batch))))


@dataclass(frozen=True)
class Crops:
    """A resized crop of each image, which for this need not lie on a canvas."""

    crop: ResizedCrop
    seed: int
    share: Share

    def of(self, images: Sequence[Tensor], step: int) -> Tensor:
        """Of images (C, h, w) on the CPU, each of a size of its own: (B, C, H, W)."""
        return self.crop.of(images, Draws(self.seed, step, images[0].device, len(images), self.share))

    def __call__(self, batch: Batch, step: int) -> Batch:
        return self.crop(batch, _draws(self.seed, step, batch, self.share))


First = Moves | Crops


@dataclass(frozen=True)
class Pipeline:
    """What happens to images on the device; a function of (seed, step) and the batch."""

    pixels: Sequence[Drawn | Moves | Crops]
    scaled: Sequence[Drawn]
    mixing: Sequence[Drawn]
    """Of which each step takes one."""
    scaling: ScalingOnDevice
    seed: int
    resize: Callable[[Tensor, int], Tensor] | None = None
    """What gives the inputs of a step their size."""
    beside_workers: bool = False
    """Whether other processes use the same cores meanwhile: threads would wait for each other in turns."""

    @property
    def first(self) -> First | None:
        """What comes before everything else, if a loader may do it while it gets the batch together."""
        return self.pixels[0] if self.pixels and isinstance(self.pixels[0], First) else None

    def behind(self, *, does_first: bool, beside_workers: bool) -> Pipeline:
        """What is left of it behind a loader. does_first: whether the loader does `first`."""
        pixels = self.pixels[1:] if does_first else self.pixels
        return replace(self, pixels=pixels, beside_workers=beside_workers)

    def train(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """Inputs (B, C, h, w) float32, and targets: (B,) int64, or (B, K) float32 when examples are mixed."""
        images, targets = self.full(batch, step)
        return images if self.resize is None else self.resize(images, step), targets

    def full(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """The same before the inputs get their size: (B, C, H, W)."""
        for change in self.pixels:
            batch = change(batch, step)
        with one_thread() if self.beside_workers else nullcontext():
            scaled = self.scaling.apply(batch.inputs)
        if not self.scaled and not self.mixing:
            return scaled, batch.targets
        batch = batch.with_(inputs=scaled)
        for change in self.scaled:
            batch = change(batch, step)
        if self.mixing:
            batch = self.mixing[derive_seed(self.seed, step, "mixing") % len(self.mixing)](batch, step)
        return batch.inputs, batch.targets

    def evaluate(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 to float32 inputs, without any randomness."""
        return self.scaling.apply(images)


def _draws(seed: int, step: int, batch: Batch, share: Share) -> Draws:
    return Draws(seed, step, batch.inputs.device, len(batch), share)


def _joined(pixels: Sequence[Drawn]) -> list[Drawn | Moves | Crops]:
    """The pixel stage, neighbours that only move whole pixels joined."""
    found: list[Drawn | Moves | Crops] = []
    for drawn in pixels:
        last, transform = found[-1] if found else None, drawn.transform
        if isinstance(transform, ResizedCrop):
            found.append(Crops(transform, drawn.seed, drawn.share))
        elif not isinstance(transform, Rearrange):
            found.append(drawn)
        elif isinstance(last, Moves):
            last.parts.append((transform, drawn.seed))
        else:
            found.append(Moves([(transform, drawn.seed)], drawn.share))
    return found


def build_pipeline(
    augmentations: Sequence[Augmentation], context: AugmentationContext, scaling: ScalingOnDevice, share: Share = WHOLE,
    resize: Callable[[Tensor, int], Tensor] | None = None,
) -> Pipeline:  # fmt: skip
    """The pipeline of a list of augmentations that `check_order` accepts, for a process's share of each batch.

    An augmentation's draws depend on its name and on how many of that name stand before it, so that adding
    another one to the list does not change them.
    """
    stages: dict[str, list[Drawn]] = {stage: [] for stage in STAGES}
    seen: list[str] = []
    for entry in augmentations:
        name = entry.name
        seed = derive_seed(context.seed, name, seen.count(name))
        stages[entry.stage].append(Drawn(entry.build(context), seed, share))
        seen.append(name)
    return Pipeline(_joined(stages["pixels"]), stages["scaled"], stages["batch"], scaling, context.seed, resize)
