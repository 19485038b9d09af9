"""What the tests of augmentations share: the options that show what an augmentation does."""

from __future__ import annotations

from typing import Any

from dltrain.data.augmentation import Augmentation

STRONG: dict[str, dict[str, Any]] = {
    "random_erasing": {"probability": 1.0, "area": [0.1, 0.3]},
    "cutout": {"size": 6},
    "grayscale": {"probability": 0.5},
}
"""Where the defaults would show too little."""


def entry_of(name: str) -> Augmentation:
    """An augmentation with these options."""
    entry = Augmentation.parse({"name": name, **STRONG.get(name, {})})
    assert isinstance(entry, Augmentation)
    return entry
