"""Data sets for image regression and for several labels, made from Fashion-MNIST: `.npz` files for `data: arrays`.

    python scripts/make_examples.py
    python scripts/make_examples.py --root elsewhere --output elsewhere

Reads the IDX files in data/, and writes fashion_angles.npz and fashion_tiles.npz there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from dltrain.data.readers import read_idx_dataset
from dltrain.data.sources import ArraySource

KINDS = {"trouser": 1, "bag": 8, "ankle boot": 9}
"""The labels of the tiles, and their classes in Fashion-MNIST."""
SIZES = {"angles": (12_000, 2_000), "tiles": (8_000, 2_000)}
"""Training and test examples."""


def angles(images: np.ndarray, count: int, seed: int, largest: float = 45.0) -> dict[str, np.ndarray]:
    """`count` of the images (N, 28, 28), each turned counterclockwise by up to `largest` degrees to either side; the
    angle is the target."""
    draw = np.random.default_rng(seed)
    turned = draw.uniform(-largest, largest, count)
    chosen = images[draw.permutation(len(images))[:count]]
    rotated = [
        np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR))
        for image, angle in zip(chosen, turned.tolist(), strict=True)
    ]
    return {"images": np.stack(rotated), "targets": turned}


def tiles(images: np.ndarray, classes: np.ndarray, count: int, seed: int) -> dict[str, np.ndarray]:
    """Pictures (count, 56, 56) of four images each, half of them of KINDS; the targets (count, 3) say which of these
    are in a picture."""
    draw = np.random.default_rng(seed)
    asked = np.isin(classes, list(KINDS.values()))
    ours, others = np.flatnonzero(asked), np.flatnonzero(~asked)
    places = np.where(draw.random((count, 4)) < 0.5, draw.choice(ours, (count, 4)), draw.choice(others, (count, 4)))
    four = images[places].reshape(count, 2, 2, 28, 28).transpose(0, 1, 3, 2, 4).reshape(count, 56, 56)
    return {"images": four, "targets": np.stack([(classes[places] == k).any(1) for k in KINDS.values()], 1)}


def make(root: Path, output: Path, sizes: dict[str, tuple[int, int]] | None = None) -> list[Path]:
    """Write both files from the IDX files in `root`; their paths. Raises ConfigError when they are not there."""
    given, sizes = read_idx_dataset("fashion_mnist", str(root), False), sizes or SIZES
    output.mkdir(parents=True, exist_ok=True)
    made: dict[str, dict[str, np.ndarray]] = {"angles": {}, "tiles": {}}
    for split, (source, prefix) in enumerate(((given.train, ""), (given.test, "test_"))):
        assert isinstance(source, ArraySource)
        images, classes = source.images[:, 0], source.targets
        of_split = {
            "angles": angles(images, sizes["angles"][split], split),
            "tiles": tiles(images, classes, sizes["tiles"][split], split),
        }
        for name, arrays in of_split.items():
            made[name] |= {prefix + key: values for key, values in arrays.items()}
    names = {"angles": ["angle"], "tiles": list(KINDS)}
    paths = []
    for name, arrays in made.items():
        paths.append(output / f"fashion_{name}.npz")
        np.savez_compressed(paths[-1], names=np.array(names[name]), **arrays)
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder with the IDX files of Fashion-MNIST")
    parser.add_argument("--output", type=Path, default=Path("data"), help="folder for the .npz files")
    options = parser.parse_args()
    for path in make(options.root, options.output):
        print(path)
