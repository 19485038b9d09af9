"""Pictures with each kind of targets in an .npz file, small enough to be learned in a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def write_targets(path: Path, kind: str, examples: int = 150, **changes: Any) -> Path:
    """8x8 pictures whose halves are more or less bright. kind: numbers, two of very different sizes that say how
    bright; labels, three, which say what is bright; classes, two. changes: other arrays of the file."""
    draw = np.random.default_rng(0)
    bright = draw.uniform(0, 1, (examples, 2))
    pixels = np.repeat(60 + 120 * bright, 4, axis=1)[:, None, :] + draw.normal(0, 8, (examples, 8, 8))
    arrays: dict[str, Any] = {"images": pixels.clip(0, 255).astype(np.uint8)}
    if kind == "numbers":
        arrays |= {"targets": bright * [1000, 1e-3] + [5e4, 0], "names": ["left", "right"]}
    elif kind == "labels":
        is_bright = bright > 0.6
        arrays |= {"targets": np.column_stack([is_bright, is_bright.all(1)]), "names": ["left", "right", "both"]}
    else:
        arrays |= {"labels": (bright.sum(1) > 1.2).astype(int), "classes": ["dark", "bright"]}
    arrays |= changes
    np.savez(path, **{name: values for name, values in arrays.items() if values is not None})
    return path
