"""Augmentations: random, seeded changes of training images, as sections. Importing this completes the catalogue."""

from dltrain.config.folders import import_modules
from dltrain.data.augmentation.base import Augmentation

import_modules(__name__, __path__)

__all__ = ["Augmentation"]
