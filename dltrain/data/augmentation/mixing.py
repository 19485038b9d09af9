"""Augmentations after scaling: rectangles cut out, and examples mixed. The code is in `kernels_mixing`."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from pydantic import model_validator

from dltrain.config import Positive, PositiveInt, Probability, reject
from dltrain.data.augmentation.base import Augmentation, AugmentationContext, Mixing, Transform
from dltrain.data.augmentation.geometry import check_range


class Cutout(Augmentation):
    """A square of zeros, around any pixel: it may cross the border. Zero is the mean under `standardize`."""

    name: Literal["cutout"] = "cutout"
    stage: ClassVar[Literal["pixels", "scaled", "batch"]] = "scaled"
    source: ClassVar[str] = "DeVries and Taylor 2017, arXiv 1708.04552"
    size: PositiveInt = 16
    """Side of the square, in pixels."""
    probability: Probability = 1.0
    """Chance for each example."""

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import mixing as kernels

        return partial(kernels.cutout, size=self.size, probability=self.probability)


class RandomErasing(Augmentation):
    """A rectangle within the image set to one value."""

    name: Literal["random_erasing"] = "random_erasing"
    stage: ClassVar[Literal["pixels", "scaled", "batch"]] = "scaled"
    source: ClassVar[str] = "Zhong et al. 2017, arXiv 1708.04896"
    probability: Probability = 0.25
    """Chance for each example."""
    area: list[Positive] = [0.02, 0.33]
    """Smallest and largest area, as a share of the image."""
    ratio: list[Positive] = [0.3, 3.3]
    """Smallest and largest height, as a multiple of the width."""
    value: float = 0.0
    """What the rectangle is set to, in units of the scaled input."""

    @model_validator(mode="after")
    def _ranges(self) -> RandomErasing:
        check_range("area", self.area)
        check_range("ratio", self.ratio)
        if self.area[1] > 1:
            raise reject("area", f"`area` must not exceed the whole image, 1, but is {self.area}")
        return self

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import mixing as kernels

        area, ratio = (self.area[0], self.area[1]), (self.ratio[0], self.ratio[1])
        return partial(kernels.random_erasing, probability=self.probability, area=area, ratio=ratio, value=self.value)


class Mixup(Augmentation):
    """Each example blended with another, and so are their targets.

    With cutmix in the same list, every batch takes one of the two, drawn with equal chances.
    """

    name: Literal["mixup"] = "mixup"
    stage: ClassVar[Literal["pixels", "scaled", "batch"]] = "batch"
    mixing: ClassVar[Mixing | None] = "blend"
    source: ClassVar[str] = "Zhang et al. 2017, arXiv 1710.09412"
    alpha: Positive = 0.2
    """The example's own share is drawn from Beta(alpha, alpha), for each example."""
    probability: Probability = 1.0
    """Chance for each example."""

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import mixing as kernels

        return partial(kernels.mixup, alpha=self.alpha, probability=self.probability, target=context.target)


class CutMix(Augmentation):
    """A box of another example pasted in, targets weighted with the shares of pixels.

    With mixup in the same list, every batch takes one of the two, drawn with equal chances.
    """

    name: Literal["cutmix"] = "cutmix"
    stage: ClassVar[Literal["pixels", "scaled", "batch"]] = "batch"
    mixing: ClassVar[Mixing | None] = "paste"
    source: ClassVar[str] = "Yun et al. 2019, arXiv 1905.04899"
    alpha: Positive = 1.0
    """The area outside the box is drawn from Beta(alpha, alpha), for each example, before clipping."""
    probability: Probability = 1.0
    """Chance for each example."""

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import mixing as kernels

        return partial(kernels.cutmix, alpha=self.alpha, probability=self.probability, target=context.target)
