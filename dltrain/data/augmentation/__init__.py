"""Augmentations: random, seeded changes of training images, as sections."""
