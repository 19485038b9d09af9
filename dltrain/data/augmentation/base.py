"""The kind `Augmentation`: a batched, seeded function of images on the device."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from dltrain.config import Choice
from dltrain.data.random import Draws
from dltrain.data.types import Batch, ImageShape, InputSpec

if TYPE_CHECKING:
    from torch import Tensor

    from dltrain.data.targets import TargetSpec

Mixing = Literal["blend", "paste"]
"""How examples are mixed: blended everywhere, or a part of one pasted into another."""
STAGES = ("pixels", "scaled", "batch")

Transform = Callable[[Batch, Draws], Batch]
"""Takes a batch and the step's draws, returns a new batch; never writes into its input."""


@dataclass(frozen=True)
class AugmentationContext:
    """What an augmentation may depend on besides its options.

    shape: the images as the model will see them. target: what is to be learned of them. seed: the experiment's. mean,
    std: (C,) float32 of the scaling, in 0..255. covariance: (C, C) float32 of the training pixels in 0..1, or None
    unless asked for by `needs_covariance`.
    """

    shape: ImageShape
    target: TargetSpec
    seed: int
    mean: Tensor
    std: Tensor
    covariance: Tensor | None = None


class Augmentation(Choice):
    """A random change of training images, drawn anew for every example and epoch."""

    kind: ClassVar[str] = "augmentations"
    stage: ClassVar[Literal["pixels", "scaled", "batch"]] = "pixels"
    """pixels: values 0..255, uint8 or float32 (keep the dtype when values do not change); scaled: float32
    after input scaling; batch: after scaling, mixes examples and sets `targets`. They run in this order."""
    inputs: ClassVar[tuple[type[InputSpec], ...]] = (ImageShape,)
    """What it changes."""
    needs_covariance: ClassVar[bool] = False
    mixing: ClassVar[Mixing | None] = None
    """How it mixes examples and their targets, if it does."""

    @abstractmethod
    def build(self, context: AugmentationContext) -> Transform:
        """The function that does it."""


def check_order(augmentations: Sequence[Augmentation]) -> list[tuple[int, str]]:
    """(index, message) of every augmentation that follows one of a later stage."""
    when = {"pixels": "before scaling", "scaled": "after scaling", "batch": "last, on whole batches"}
    problems: list[tuple[int, str]] = []
    latest: Augmentation | None = None
    for index, entry in enumerate(augmentations):
        if latest is not None and STAGES.index(entry.stage) < STAGES.index(latest.stage):
            name, before = entry.name, latest.name
            message = (
                f"`{name}` must come before `{before}`: it works {when[entry.stage]}, `{before}` {when[latest.stage]}"
            )
            problems.append((index, message))
        else:
            latest = entry
    return problems
