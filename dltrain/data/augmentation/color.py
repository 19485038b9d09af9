"""Augmentations that change pixel values. The code is in `kernels_color`."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from dltrain.config import ConfigError, Diagnostic, NonNegative, Positive, Probability, reject
from dltrain.data.augmentation.base import Augmentation, AugmentationContext, Transform

HalfCircle = Annotated[float, Field(ge=0, le=0.5)]


def require_color(name: str, context: AugmentationContext) -> None:
    """Raises ConfigError unless images are grey or RGB."""
    if context.shape.channels not in (1, 3):
        message = f"`{name}` needs grey or RGB images, but these have {context.shape.channels} channels"
        raise ConfigError([Diagnostic(message, notes=(f"leave out `{name}`",))])


class Brightness(Augmentation):
    """Values times a factor about 1, clipped."""

    name: Literal["brightness"] = "brightness"
    strength: NonNegative = 0.4
    """The factor is uniform in 1 +- strength, never below 0."""

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import color as kernels

        return partial(
            kernels.adjusted, adjust=kernels.brightness, low=max(0.0, 1 - self.strength), high=1 + self.strength
        )


class Contrast(Augmentation):
    """Distances from the image's mean grey level times a factor about 1, clipped."""

    name: Literal["contrast"] = "contrast"
    strength: NonNegative = 0.4
    """The factor is uniform in 1 +- strength, never below 0."""

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import color as kernels

        return partial(
            kernels.adjusted, adjust=kernels.contrast, low=max(0.0, 1 - self.strength), high=1 + self.strength
        )


class Saturation(Augmentation):
    """Distances of each pixel from its own grey level times a factor about 1, clipped; grey images stay."""

    name: Literal["saturation"] = "saturation"
    strength: NonNegative = 0.4
    """The factor is uniform in 1 +- strength, never below 0."""

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import color as kernels

        require_color(self.name, context)
        return partial(
            kernels.adjusted, adjust=kernels.saturation, low=max(0.0, 1 - self.strength), high=1 + self.strength
        )


class Hue(Augmentation):
    """The hue of HSV moved round the colour circle; grey images stay."""

    name: Literal["hue"] = "hue"
    strength: HalfCircle = 0.1
    """Largest move to either side; 1 is the full circle."""

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import color as kernels

        require_color(self.name, context)
        return partial(kernels.adjusted, adjust=kernels.hue, low=-self.strength, high=self.strength)


class ColorJitter(Augmentation):
    """Brightness, contrast, saturation and hue, in an order drawn for each batch."""

    name: Literal["color_jitter"] = "color_jitter"
    brightness: NonNegative = 0.4
    """The factor is uniform in 1 +- this, never below 0."""
    contrast: NonNegative = 0.4
    """The factor is uniform in 1 +- this, never below 0."""
    saturation: NonNegative = 0.4
    """The factor is uniform in 1 +- this, never below 0."""
    hue: HalfCircle = 0.1
    """Largest move to either side; 1 is the full circle."""

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import color as kernels

        require_color(self.name, context)
        steps: list[tuple[kernels.Adjust, float, float]] = [
            (kernels.brightness, max(0.0, 1 - self.brightness), 1 + self.brightness),
            (kernels.contrast, max(0.0, 1 - self.contrast), 1 + self.contrast),
            (kernels.saturation, max(0.0, 1 - self.saturation), 1 + self.saturation),
            (kernels.hue, -self.hue, self.hue),
        ]
        return partial(kernels.color_jitter, steps=[step for step in steps if step[1] < step[2]])


class ColorNoise(Augmentation):
    """One random shift of all pixels of an image along the main axes of the training set's colours.

    The shift is U (alpha * L) with alpha ~ N(0, strength^2), where U and L are the eigenvectors and eigenvalues
    of the covariance of the training pixels, in 0..1. The result is not clipped.
    """

    name: Literal["color_noise"] = "color_noise"
    source: ClassVar[str] = "Krizhevsky, Sutskever and Hinton 2012, section 4.1"
    needs_covariance: ClassVar[bool] = True
    strength: NonNegative = 0.1
    """Standard deviation of alpha."""

    def build(self, context: AugmentationContext) -> Transform:
        import torch

        from dltrain.data.augmentation.impl import color as kernels

        if context.covariance is None:
            raise ValueError("color_noise needs the covariance of the training pixels")
        eigenvalues, eigenvectors = torch.linalg.eigh(context.covariance.double().cpu())
        axes = (eigenvectors * eigenvalues).float().to(context.covariance.device)
        return partial(kernels.color_noise, strength=self.strength, axes=axes)


class Grayscale(Augmentation):
    """All channels set to the grey level."""

    name: Literal["grayscale"] = "grayscale"
    probability: Probability = 0.1
    """Chance for each example."""

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import color as kernels

        require_color(self.name, context)
        return partial(kernels.grayscale, probability=self.probability)


class GaussianNoise(Augmentation):
    """Independent normal noise on every value, clipped."""

    name: Literal["gaussian_noise"] = "gaussian_noise"
    std: NonNegative = 0.1
    """Standard deviation; 1 is the full range of values."""

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import color as kernels

        return partial(kernels.gaussian_noise, std=self.std)


class GaussianBlur(Augmentation):
    """Smoothed by a Gaussian of random width."""

    name: Literal["gaussian_blur"] = "gaussian_blur"
    source: ClassVar[str] = "Chen et al. 2020, arXiv 2002.05709, appendix A"
    probability: Probability = 0.5
    """Chance for each example."""
    low: Positive = 0.1
    """Smallest standard deviation of the Gaussian, in pixels."""
    high: Positive = 2.0
    """Largest standard deviation of the Gaussian, in pixels."""

    @model_validator(mode="after")
    def _ordered(self) -> GaussianBlur:
        if self.low > self.high:
            raise reject("high", f"`high` must not be less than `low` ({self.low:g}), but is {self.high:g}")
        return self

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import color as kernels

        return partial(kernels.gaussian_blur, probability=self.probability, low=self.low, high=self.high)
