"""The torch code of the augmentations. Imported only when a section builds."""
