"""The settings that `init` writes: chosen by what the images are, with the reason beside each.

Times are of 2 shared cores. Fine-tuning could not be measured where this was written, without a network.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field

from dltrain.config.reader import scalar
from dltrain.data.targets import Classes
from dltrain.data.types import Splits

SMALL = 64
"""Pixels of the shorter side: larger images are photos, which are cropped and resized."""


@dataclass(frozen=True)
class Findings:
    """What was seen in the data. where: its section's keys, as YAML. counts: training images by class or label.
    sizes: width and height of some images."""

    where: str
    splits: Splits
    counts: Counter[str]
    sizes: list[tuple[int, int]]
    grey: bool
    notes: list[str] = field(default_factory=list)

    @property
    def images(self) -> int:
        """Training images."""
        return len(self.splits.train)

    @property
    def is_array(self) -> bool:
        """Whether the images have one size already."""
        return self.splits.train.files is None

    @property
    def side(self) -> int:
        """The median shorter side."""
        shorter = sorted(min(size) for size in self.sizes)
        return shorter[len(shorter) // 2]

    @property
    def are_photos(self) -> bool:
        """Whether the images are large."""
        return self.side > SMALL

    @property
    def facts(self) -> str:
        """All of it in a line."""
        others = {"validation": self.splits.validation, "test": self.splits.test}
        parts = [f"{len(part):,} {name}" if part is not None else f"no {name}" for name, part in others.items()]
        what = "class" if isinstance(self.splits.target, Classes) else "label"
        each = f" ({span(list(self.counts.values()))} a {what})" if self.counts else ""
        pixels = " x ".join(span([size[axis] for size in self.sizes]) for axis in (0, 1))
        colour = "grey" if self.grey else "colour"
        return (
            f"{self.images:,} training images of {self.splits.target.counted}{each}, {', '.join(parts)}; {colour}, "
            f"{pixels} pixels"
        )


def span(values: list[int]) -> str:
    """The smallest and the largest of them: `3 to 5`."""
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def recipe(found: Findings, *, pretrained: bool) -> str:
    """The experiment's text."""
    lines = [
        f"# {found.facts}.",
        *(f"# Mind: {note}." for note in found.notes),
        "# To train: dltrain fit THIS_FILE. What else can be written: dltrain list.",
    ]
    if pretrained:
        lines += _fine_tuning(found)
    else:
        lines += _photos(found) if found.are_photos else _small(found)
    return "\n".join(lines) + "\n"


def _fine_tuning(found: Findings) -> list[str]:
    """A pretrained network needs few epochs, and its own size and scaling."""
    batch = batch_of(found.images, 32)
    epochs = epochs_of(found.images, batch, steps=500, least=5, most=30)
    return [
        f"data: {{{found.where}, size: 224}}   # 160 is twice as fast and nearly as good",
        "augmentation:",
        "  - {name: random_resized_crop, scale: [0.35, 1.0]}   # crops of 35 % of the photo and more",
        "  - horizontal_flip                                   # delete it if left and right matter",
        "  - {name: color_jitter, brightness: 0.2, contrast: 0.2, saturation: 0.2, hue: 0.02}",
        "model: {name: resnet18, pretrained: true}             # ImageNet weights, with a new last layer",
        "optimizer: {name: adamw, lr: 3.0e-4, weight_decay: 0.05, no_decay: [bias, norm]}",
        "schedule: {name: cosine, warmup: {epochs: 1}}",
        *_loss(found),
        *_rest(epochs, batch, 0.98, lr=3e-4, decay=0.05),
    ]


def _photos(found: Findings) -> list[str]:
    """From random weights. Validation accuracy on 576 photos of 12 classes (caltech12): 0.82 in 15 minutes of
    processor time (with half the epochs 0.79; resnet18 needs twice the time for that). On 200 flowers of 5
    classes: 0.72 in 5 minutes."""
    batch = batch_of(found.images, 32)
    epochs = epochs_of(found.images, batch, steps=1500, least=20, most=80)
    grey = ", channels: 1" if found.grey and not found.is_array else ""
    colours = ["  - {name: color_jitter, brightness: 0.3, contrast: 0.3, saturation: 0.3, hue: 0.02}"]
    return [
        f"data: {{{found.where}{grey}, size: 96}}   # more pixels show more, and take time by their square",
        "augmentation:",
        "  - {name: random_resized_crop, scale: [0.25, 1.0]}   # crops of 25 % of the photo and more",
        "  - horizontal_flip                                   # delete it if left and right matter",
        *(["  - {name: color_jitter, brightness: 0.3, contrast: 0.3}"] if found.grey else colours),
        "# A network that starts from random weights, small enough for a computer without a GPU. Where weights can",
        "# be downloaded, `dltrain init --pretrained` writes what learns far more from few photos.",
        "model: {name: convnet, widths: [32, 64, 128, 256], dropout: 0.1}",
        "optimizer: {name: adamw, lr: 2.0e-3, weight_decay: 0.05, no_decay: [bias, norm]}",
        "schedule: {name: cosine, warmup: {epochs: 3}}",
        *_loss(found),
        *_rest(epochs, batch, 0.99, lr=2e-3, decay=0.05),
    ]


def _small(found: Findings) -> list[str]:
    """Test accuracy with 1,295 digits of 8x8: 0.992 in 25 s; with 3,602 images of Fashion-MNIST: 0.894, in 11
    minutes of processor time."""
    batch = batch_of(found.images, 128)
    epochs = epochs_of(found.images, batch, steps=1500, least=10, most=60)
    size = "" if found.is_array else f", size: {max(8, min(found.side, SMALL))}"
    grey = ", channels: 1" if found.grey and not found.is_array else ""
    shift = max(round(found.side / 8), 1)
    return [
        f"data: {{{found.where}{grey}{size}}}",
        "augmentation:",
        f"  - {{name: random_crop, padding: {shift}}}   # shifts by up to {_pixels(shift)}",
        "  # - horizontal_flip                # where left and right do not matter: delete the first #",
        "model: {name: convnet, widths: [32, 64, 128], depth: 2, dropout: 0.1}",
        "optimizer: {name: sgd, lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 5.0e-4, no_decay: [bias, norm]}",
        "schedule: {name: cosine, warmup: {epochs: 1}}",
        *_loss(found),
        *_rest(epochs, batch, 0.99, lr=0.1, decay=5e-4),
    ]


def _pixels(count: int) -> str:
    return "one pixel" if count == 1 else f"{count} pixels"


def batch_of(examples: int, most: int) -> int:
    """At least 16 steps an epoch, but no batch of fewer than 16 examples, whose batch norm is all noise."""
    return next((size for size in (256, 128, 64, 32) if size <= most and examples >= 16 * size), min(16, examples))


def epochs_of(examples: int, batch: int, steps: int, least: int, most: int) -> int:
    """Enough steps to learn, however few the examples are."""
    return max(least, min(most, round(steps * batch / examples)))


def _loss(found: Findings) -> list[str]:
    """Numbers and labels have the usual loss of their task."""
    return ["loss: {name: cross_entropy, label_smoothing: 0.1}"] if isinstance(found.splits.target, Classes) else []


def _rest(epochs: int, batch: int, average: float, *, lr: float, decay: float) -> list[str]:
    return [
        "training:",
        f"  epochs: {epochs}",
        f"  batch_size: {batch}",
        f"  average: {{name: ema, decay: {average}, warmup: true}}   # evaluated is a running average of the weights",
        "sweep:   # what `dltrain sweep THIS_FILE` searches, judged on the validation split",
        "  trials: 20",
        f"  epochs: {max(epochs // 4, 1)}",
        "  space:",
        f"    optimizer.lr: {{low: {number(lr / 10)}, high: {number(lr * 5)}, log: true}}",
        f"    optimizer.weight_decay: {{low: {number(decay / 50)}, high: {number(decay * 5)}, log: true}}",
    ]


def number(value: float) -> str:
    """As YAML reads it: `3.0e-4`."""
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e+")


def yaml_scalar(value: str | float) -> str:
    """A value as YAML writes it, also within a flow mapping."""
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z_./][\w./-]*", value, re.ASCII)
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str) or (plain and isinstance(scalar(value), str)):  # a folder may be called `null`
        return str(value)
    return json.dumps(value, ensure_ascii=False)
