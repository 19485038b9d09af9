"""Data: data sets, splits, scaling, augmentation and the loaders that put batches on the device."""
