"""`init`: look at images and write a commented experiment that trains well on them as it is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.base import ArraySource, FileSource, Splits
from dltrain.data.datasets import Arrays, Dataset, ImageFolder
from dltrain.experiment import Experiment
from dltrain.runs import RunError

SMALL = 64
"""Pixels: larger images are photos, which want a network made (and pretrained) for photos."""
SAMPLE = 200


@dataclass(frozen=True)
class Findings:
    """What was seen in the data."""

    dataset: Dataset
    where: str
    splits: Splits
    sizes: list[tuple[int, int]]
    """Width and height of some training images."""
    grey: bool

    @property
    def side(self) -> int:
        """The median shorter side."""
        shorter = sorted(min(size) for size in self.sizes)
        return shorter[len(shorter) // 2]


def write_experiment(path: Path, output: Path | None, *, pretrained: bool | None = None) -> Path:
    """Write an experiment for the folder or .npz at `path`; the file's path.

    pretrained: whether photos start from pretrained weights; None: when these can be had.
    Raises RunError when the file exists already, ConfigError when the data cannot be used.
    """
    if not path.exists():
        raise RunError(f"there is nothing at {path}")
    target = output or Path("experiments") / f"{_name(path)}.yaml"
    if target.exists():
        raise RunError(f"{target} exists already; give another name with --output")
    text = describe(look(path), pretrained_available() if pretrained is None else pretrained)
    Experiment.parse(text, target.name)  # what we write must be right
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return target


def _name(path: Path) -> str:
    return path.resolve().stem.replace(" ", "_") or "images"


def look(path: Path) -> Findings:
    """Read enough of the data to describe it. Raises ConfigError when it holds no usable images."""
    if path.is_dir():
        dataset: Dataset = ImageFolder(root=str(path))
    elif path.suffix == ".npz":
        dataset = Arrays(path=str(path))
    else:
        message = f"{path} is neither a folder of class folders nor an .npz file"
        raise ConfigError([Diagnostic(message, notes=("a folder holds one sub-folder of images per class",))])
    splits = dataset.load()
    if isinstance(splits.train, ArraySource):
        channels, height, width = splits.train.images.shape[1:]
        return Findings(dataset, f"path: {path}", splits, [(width, height)], channels == 1)
    sizes, modes = _headers(splits.train)
    return Findings(dataset, f"root: {path}", splits, sizes, modes <= {"1", "L"})


def _headers(source: FileSource) -> tuple[list[tuple[int, int]], set[str]]:
    """Size and mode of evenly spaced files; their pixels are not decoded."""
    from PIL import Image

    step = max(len(source) // SAMPLE, 1)
    sizes, modes = [], set()
    for name in source.paths[::step]:
        with Image.open(Path(source.root) / name) as image:
            sizes.append(image.size)
            modes.add(image.mode)
    return sizes, modes


def pretrained_available() -> bool:
    """Whether torchvision's ResNet-18 weights lie in the cache, or their server answers."""
    from urllib.error import URLError
    from urllib.request import Request, urlopen

    import torch
    from torchvision.models import ResNet18_Weights

    url = ResNet18_Weights.DEFAULT.url
    if (Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]).is_file():
        return True
    try:
        with urlopen(Request(url, method="HEAD"), timeout=3):
            return True
    except (URLError, OSError):
        return False


def describe(found: Findings, pretrained: bool) -> str:
    """The experiment's text: facts of the data as comments, and settings chosen by them."""
    train = found.splits.train
    counts = Counter(int(label) for label in train.labels)
    rarest, commonest = min(counts.values()), max(counts.values())
    sizes = [min(s) for s in found.sizes] + [max(s) for s in found.sizes]
    images = len(train)
    lines = [
        f"# {images:,} training images of {len(found.splits.classes)} classes,"
        f" {rarest} to {commonest} a class, {min(sizes)} to {max(sizes)} pixels a side.",
        "# To train: dltrain fit THIS_FILE. What else could be written: dltrain list.",
    ]
    if commonest > 4 * rarest:
        name = found.splits.classes[min(counts, key=counts.__getitem__)]
        lines.append(f"# Class {name} has few images: look at its recall in what `dltrain eval` prints.")
    # Enough steps to learn, however few the images are.
    batch = next((b for b in (128, 64, 32, 16, 8) if images >= 8 * b), min(8, images))
    photos = found.side > SMALL
    body = _photos(found, batch, pretrained) if photos else _small(found, batch)
    return "\n".join(lines + body) + "\n"


def _epochs(images: int, batch: int, steps: int, low: int, high: int) -> int:
    return max(low, min(high, round(steps * batch / images)))


def _photos(found: Findings, batch: int, pretrained: bool) -> list[str]:
    images = len(found.splits.train)
    batch = min(batch, 32)
    size = 224 if pretrained or found.side > 256 else 128 if found.side >= 128 else 96
    lines = [f"data: {{name: {found.dataset.name}, {found.where}, size: {size}}}", "augmentation:"]
    if pretrained:
        lines += [
            "  - {name: random_resized_crop, scale: [0.35, 1.0]}   # crops of 35 % of the photo and more",
            "  - horizontal_flip                                   # delete it if left and right matter",
            "  - {name: color_jitter, brightness: 0.2, contrast: 0.2, saturation: 0.2, hue: 0.02}",
            "model: {name: resnet18, pretrained: true}   # ImageNet weights, with a new last layer",
            "optimizer: {name: adamw, lr: 3.0e-4, weight_decay: 0.05, no_decay: [bias, norm]}",
            "schedule: {name: cosine, warmup: {epochs: 1}}",
        ]
        epochs, decay = _epochs(images, batch, 600, 5, 30), 0.98
    else:
        lines += [
            "  - {name: random_resized_crop, scale: [0.25, 1.0]}   # crops of 25 % of the photo and more",
            "  - horizontal_flip                                   # delete it if left and right matter",
            "  - {name: color_jitter, brightness: 0.3, contrast: 0.3, saturation: 0.3, hue: 0.02}",
            "# No pretrained weights could be had when this file was written, so the network starts at random. With",
            "# a network, `pretrained: true` learns more from few photos: size 224, adamw, lr 3.0e-4, a third of the epochs.",
            "model: {name: resnet18, pretrained: false}",
            "optimizer: {name: adamw, lr: 1.0e-3, weight_decay: 0.05, no_decay: [bias, norm]}",
            "schedule: {name: cosine, warmup: {epochs: 3}}",
        ]
        epochs, decay = _epochs(images, batch, 2000, 20, 90), 0.99
    return [*lines, *_rest(epochs, batch, decay)]


def _small(found: Findings, batch: int) -> list[str]:
    images = len(found.splits.train)
    size = "" if isinstance(found.splits.train, ArraySource) else f", size: {max(8, min(found.side, SMALL))}"
    shift = max(round(found.side / 8), 1)
    return [
        f"data: {{name: {found.dataset.name}, {found.where}{size}}}",
        "augmentation:",
        f"  - {{name: random_crop, padding: {shift}}}   # shifts by up to {shift} pixels",
        "  # - horizontal_flip             # add it if left and right do not matter",
        "model: {name: convnet, widths: [64, 128, 256], depth: 2, dropout: 0.1}",
        "optimizer: {name: sgd, lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 5.0e-4, no_decay: [bias, norm]}",
        "schedule: {name: cosine, warmup: {epochs: 1}}",
        *_rest(_epochs(images, batch, 3000, 8, 60), batch, 0.99),
    ]


def _rest(epochs: int, batch: int, decay: float) -> list[str]:
    return [
        "loss: {name: cross_entropy, label_smoothing: 0.1}",
        "training:",
        f"  epochs: {epochs}",
        f"  batch_size: {batch}",
        f"  average: {{name: ema, decay: {decay}, warmup: true}}",
        "sweep:                                # dltrain sweep THIS_FILE searches these",
        "  trials: 20",
        f"  epochs: {max(epochs // 3, 1)}",
        "  space:",
        "    optimizer.lr: {low: 1.0e-5, high: 3.0e-1, log: true}",
        "    optimizer.weight_decay: {low: 1.0e-6, high: 1.0e-1, log: true}",
    ]
