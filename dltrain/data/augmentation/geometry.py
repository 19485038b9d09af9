"""Augmentations that move pixels. The code is in `kernels_geometry`."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from dltrain.config import ConfigError, Diagnostic, Fraction, NonNegativeInt, Positive, Probability, reject
from dltrain.data.augmentation.base import Augmentation, AugmentationContext, Transform


def check_range(field: str, values: list[float]) -> None:
    """Raises the error of a validator unless `values` is a low and a high end."""
    if len(values) != 2 or values[0] > values[1]:
        raise reject(field, f"`{field}` must be two numbers, the lower one first, not {values}")


class RandomCrop(Augmentation):
    """A window of the image's own size from the padded image, uniform over all whole-pixel places."""

    name: Literal["random_crop"] = "random_crop"
    source: ClassVar[str] = "He et al. 2015, arXiv 1512.03385, section 4.2"
    padding: NonNegativeInt = 4
    """Pixels added on every side."""
    fill: Literal["zero", "reflect"] = "zero"
    """What the padding shows: black, or the image mirrored at its border pixels."""

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import geometry as kernels

        if self.fill == "reflect" and self.padding >= min(context.shape.height, context.shape.width):
            message = f"`random_crop` cannot reflect {self.padding} pixels of images of {context.shape}"
            note = "with `fill: reflect`, `padding` must be smaller than the height and the width"
            raise ConfigError([Diagnostic(message, notes=(note,))])
        return kernels.random_crop(self.padding, self.fill)


class HorizontalFlip(Augmentation):
    """Left and right exchanged."""

    name: Literal["horizontal_flip"] = "horizontal_flip"
    probability: Probability = 0.5
    """Chance for each example."""

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import geometry as kernels

        return kernels.flip(self.probability, axis=3)


class VerticalFlip(Augmentation):
    """Top and bottom exchanged."""

    name: Literal["vertical_flip"] = "vertical_flip"
    probability: Probability = 0.5
    """Chance for each example."""

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import geometry as kernels

        return kernels.flip(self.probability, axis=2)


class AlternatingFlip(Augmentation):
    """Left and right exchanged in every other epoch of an example; half of the examples begin with it."""

    name: Literal["alternating_flip"] = "alternating_flip"
    source: ClassVar[str] = "Jordan 2024, arXiv 2404.00498, section 3.6"

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import geometry as kernels

        return kernels.alternating_flip(context.seed)


class Translate(Augmentation):
    """A shift by whole pixels, black where nothing is left."""

    name: Literal["translate"] = "translate"
    share: Fraction = 0.1
    """Largest shift, as a share of the height and of the width."""

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import geometry as kernels

        reach = round(self.share * max(context.shape.height, context.shape.width))
        return kernels.translate(self.share, reach)


class Rotation(Augmentation):
    """Turned about the centre, black where nothing is left."""

    name: Literal["rotation"] = "rotation"
    degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    """Largest angle to either side, in degrees."""
    interpolation: Literal["nearest", "bilinear"] = "bilinear"
    """How values between pixels are found."""

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import geometry as kernels

        return partial(kernels.rotation, degrees=self.degrees, mode=self.interpolation)


class Scale(Augmentation):
    """Enlarged or made smaller about the centre, bilinear, black where nothing is left."""

    name: Literal["scale"] = "scale"
    low: Positive = 0.9
    """Smallest factor."""
    high: Positive = 1.1
    """Largest factor."""

    @model_validator(mode="after")
    def _ordered(self) -> Scale:
        if self.low > self.high:
            raise reject("high", f"`high` must not be less than `low` ({self.low:g}), but is {self.high:g}")
        return self

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import geometry as kernels

        return partial(kernels.scale, low=self.low, high=self.high)


class RandomResizedCrop(Augmentation):
    """A box of random size and shape, resized to the model's input (bilinear, antialiased, rounded to whole values).

    Put it first in the list: it is the one augmentation that takes images of any size, so that the box
    can be cut from the full picture.
    """

    name: Literal["random_resized_crop"] = "random_resized_crop"
    source: ClassVar[str] = "Szegedy et al. 2014, arXiv 1409.4842, section 6"
    scale: list[Positive] = [0.08, 1.0]
    """Smallest and largest area of the box, as a share of the image."""
    ratio: list[Positive] = [3 / 4, 4 / 3]
    """Smallest and largest width of the box, as a multiple of its height."""

    @model_validator(mode="after")
    def _ranges(self) -> RandomResizedCrop:
        check_range("scale", self.scale)
        check_range("ratio", self.ratio)
        if self.scale[1] > 1:
            raise reject("scale", f"`scale` must not exceed the whole image, 1, but is {self.scale}")
        return self

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import geometry as kernels

        size = (context.shape.height, context.shape.width)
        area, ratio = (self.scale[0], self.scale[1]), (self.ratio[0], self.ratio[1])
        return kernels.ResizedCrop(size, area, ratio)
