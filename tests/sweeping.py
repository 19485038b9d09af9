"""A small sweep for the tests: its file, its data, the command in this process, and what it ranked."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner, Result

from dltrain.cli import app

TEXT = """
data: {{name: arrays, path: {data}, validation: 0.2}}
model: {{name: mlp, hidden: [16], dropout: 0.2}}
optimizer: {{name: sgd, lr: 0.1, momentum: 0.9}}
schedule: {{name: cosine, warmup: {{epochs: 2}}}}
training: {{epochs: 8, batch_size: 16}}
sweep:
  trials: 4
  epochs: 2
  space:
    optimizer.lr: {{low: 1.0e-3, high: 1.0, log: true}}
    model.dropout: {{low: 0.0, high: 0.5}}
"""


def write_experiment(folder: Path) -> Path:
    save_images(folder / "images.npz")
    path = folder / "tiny.yaml"
    path.write_text(TEXT.format(data=folder / "images.npz"))
    return path


def save_images(path: Path, test_seed: int = 1) -> None:
    """Three classes of noisy 6x6 images."""

    def part(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        random, labels = np.random.default_rng(seed), np.arange(count) % 3
        images = random.integers(0, 256, (count, 6, 6))
        images[np.arange(count), labels] //= 3
        return images.astype(np.uint8), labels

    images, labels = part(90, 0)
    test_images, test_labels = part(30, test_seed)
    np.savez(path, images=images, labels=labels, test_images=test_images, test_labels=test_labels)


def sweep(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["sweep", *map(str, arguments)])


def ranking(folder: Path) -> list[dict[str, str]]:
    """The rows of ranking.csv without how long each trial took."""
    with (folder / "ranking.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"]
    return rows
