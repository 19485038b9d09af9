"""The catalogue of augmentations: importing this module completes the kind `Augmentation`."""

from dltrain.data.augmentation.base import Augmentation
from dltrain.data.augmentation.color import (
    Brightness,
    ColorJitter,
    ColorNoise,
    Contrast,
    GaussianBlur,
    GaussianNoise,
    Grayscale,
    Hue,
    Saturation,
)
from dltrain.data.augmentation.geometry import (
    AlternatingFlip,
    HorizontalFlip,
    RandomCrop,
    RandomResizedCrop,
    Rotation,
    Scale,
    Translate,
    VerticalFlip,
)
from dltrain.data.augmentation.mixing import CutMix, Cutout, Mixup, RandomErasing
from dltrain.data.augmentation.policies import AugMix, AutoAugment, RandAugment, TrivialAugment

__all__ = [
    "AlternatingFlip", "AugMix", "Augmentation", "AutoAugment", "Brightness", "ColorJitter", "ColorNoise", "Contrast",
    "CutMix", "Cutout", "GaussianBlur", "GaussianNoise", "Grayscale", "HorizontalFlip", "Hue", "Mixup", "RandAugment",
    "RandomCrop", "RandomErasing", "RandomResizedCrop", "Rotation", "Saturation", "Scale", "Translate",
    "TrivialAugment", "VerticalFlip",
]  # fmt: skip
