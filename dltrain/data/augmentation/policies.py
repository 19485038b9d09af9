"""Augmentations that draw operations for each example. The code is in `kernels_policies`.

The 14 operations: identity, shear_x, shear_y, translate_x, translate_y, rotate (nearest pixel, black where
nothing is left), brightness, color, contrast, sharpness, posterize, solarize, autocontrast, equalize.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from dltrain.config import NonNegativeInt, Positive, PositiveInt, reject
from dltrain.data.augmentation.base import Augmentation, AugmentationContext, Transform
from dltrain.data.augmentation.color import require_color

Bins = Annotated[int, Field(ge=2)]


class RandAugment(Augmentation):
    """Some operations of 14, drawn for each example, all at one magnitude."""

    name: Literal["rand_augment"] = "rand_augment"
    source: ClassVar[str] = "Cubuk et al. 2019, arXiv 1909.13719"
    operations: PositiveInt = 2
    """Operations in a row (N of the paper)."""
    magnitude: NonNegativeInt = 9
    """Strength of every operation (M of the paper): 0 is the weakest, bins - 1 the strongest."""
    bins: Bins = 31
    """Number of strengths."""

    @model_validator(mode="after")
    def _magnitude_is_a_bin(self) -> RandAugment:
        if self.magnitude >= self.bins:
            message = f"`magnitude` must be less than `bins` ({self.bins}), but is {self.magnitude}"
            raise reject("magnitude", message)
        return self

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import policies as kernels

        require_color(self.name, context)
        reach = 150 / 331  # of the image; the paper shifts images of 331 pixels by up to 150
        shift = (reach * context.shape.width, reach * context.shape.height)
        table = kernels.Ranges(0.3, shift, 30.0, 0.9, 4).magnitudes(self.bins)
        return partial(kernels.apply_policy, rounds=self.operations, table=table, level=self.magnitude)


class TrivialAugment(Augmentation):
    """One operation of 14 at a random magnitude, drawn for each example from the wide space of the paper."""

    name: Literal["trivial_augment"] = "trivial_augment"
    source: ClassVar[str] = "Mueller and Hutter 2021, arXiv 2103.10158"
    bins: Bins = 31
    """Number of strengths."""

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import policies as kernels

        require_color(self.name, context)
        table = kernels.Ranges(0.99, (32.0, 32.0), 135.0, 0.99, 6).magnitudes(self.bins)
        return partial(kernels.apply_policy, rounds=1, table=table, level=None)


class AutoAugment(Augmentation):
    """One of 25 learned pairs of operations, drawn for each example, each done with its own probability."""

    name: Literal["auto_augment"] = "auto_augment"
    source: ClassVar[str] = "Cubuk et al. 2018, arXiv 1805.09501"
    policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet"
    """The data that the pairs were learned on."""

    def build(self, context: AugmentationContext) -> Transform:
        from dltrain.data.augmentation.impl import policies as kernels
        from dltrain.data.augmentation.learned_policies import POLICIES

        require_color(self.name, context)
        reach = 150 / 331
        shift = (reach * context.shape.width, reach * context.shape.height)
        table = kernels.Ranges(0.3, shift, 30.0, 0.9, 4).magnitudes(10)
        return partial(kernels.auto_augment, policy=kernels.Learned.of(POLICIES[self.policy], table))


class AugMix(Augmentation):
    """Each example mixed with chains of weak operations of it, with random shares.

    m x + (1 - m) (w_1 chain_1(x) + w_2 chain_2(x) + ...), m ~ Beta(alpha, alpha), w ~ Dirichlet(alpha).
    """

    name: Literal["aug_mix"] = "aug_mix"
    source: ClassVar[str] = "Hendrycks et al. 2019, arXiv 1912.02781"
    severity: Annotated[int, Field(ge=1, le=10)] = 3
    """Strongest of ten levels of an operation; the level is drawn up to it."""
    chains: PositiveInt = 3
    """How many chains are mixed."""
    depth: PositiveInt | None = None
    """Operations in a chain; null: 1 to 3, drawn for each."""
    alpha: Positive = 1.0
    """Of the distributions of the shares; 1 is uniform."""
    all_operations: bool = True
    """Also brightness, color, contrast and sharpness; false: only those that no common corruption repeats."""
    views: Literal[1, 3] = 1
    """3: the network sees each example and two mixtures of it, as loss `jsd` needs. What stands before in the list
    is the same in all three, what stands after is drawn for each."""

    def build(self, context: AugmentationContext) -> Transform:
        import torch

        from dltrain.data.augmentation.impl import policies as kernels

        require_color(self.name, context)
        shift = (context.shape.width / 3, context.shape.height / 3)
        table = kernels.Ranges(0.3, shift, 30.0, 0.9, 4).magnitudes(10)
        strong = () if self.all_operations else ("brightness", "color", "contrast", "sharpness")
        names = [i for i, name in enumerate(kernels.NAMES) if name not in ("identity", *strong)]
        operations = torch.tensor(names)
        chains = kernels.Chains(table, operations, self.severity, self.chains, self.depth, self.alpha)
        return partial(kernels.aug_mix, chains=chains, views=self.views)
