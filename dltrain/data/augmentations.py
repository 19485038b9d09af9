"""The catalogue of augmentations: importing this module completes the kind `Augmentation`."""

from dltrain.data.augment_color import (
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
from dltrain.data.augment_geometry import (
    AlternatingFlip,
    HorizontalFlip,
    RandomCrop,
    RandomResizedCrop,
    Rotation,
    Scale,
    Translate,
    VerticalFlip,
)
from dltrain.data.augment_mixing import CutMix, Cutout, Mixup, RandomErasing
from dltrain.data.augment_policies import AugMix, AutoAugment, RandAugment, TrivialAugment
from dltrain.data.augmentation_base import Augmentation

__all__ = [
    "AlternatingFlip", "AugMix", "Augmentation", "AutoAugment", "Brightness", "ColorJitter", "ColorNoise", "Contrast",
    "CutMix", "Cutout", "GaussianBlur", "GaussianNoise", "Grayscale", "HorizontalFlip", "Hue", "Mixup", "RandAugment",
    "RandomCrop", "RandomErasing", "RandomResizedCrop", "Rotation", "Saturation", "Scale", "Translate",
    "TrivialAugment", "VerticalFlip",
]  # fmt: skip
