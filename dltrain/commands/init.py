"""`init`: look at images or a table and write a commented experiment that trains well on them as it is.

path -> look (what is there) -> recipe (settings chosen by it, with why) -> YAML text
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from dltrain.commands.init_recipes import Findings, recipe, yaml_scalar
from dltrain.commands.init_rows import RowFindings, look_at_rows, look_at_table, recipe_of_rows
from dltrain.commands.init_splits import divided
from dltrain.config import ConfigError, Diagnostic
from dltrain.console.display import Display
from dltrain.console.streams import printable
from dltrain.data.base import NOT_OFFERED, Dataset
from dltrain.data.datasets import Arrays, ImageFolder
from dltrain.data.folders.listing import is_image, url_in
from dltrain.data.sources import ArraySource
from dltrain.data.tables.reading import ENDINGS, is_table
from dltrain.data.targets import Classes, Labels
from dltrain.data.types import ImageFiles, Splits, Vector
from dltrain.engine.forecast import WORTH_A_WORD, Forecast, duration
from dltrain.errors import RunError
from dltrain.experiment.experiment import Experiment
from dltrain.runs.checkpoints import write_atomically

SAMPLE = 500
"""Files whose size is looked at, evenly spaced."""
PATIENCE = 60.0
"""Seconds after which the pace of the training is no longer waited for."""


def write_experiment(
    path: Path, output: Path | None, display: Display, *, pretrained: bool | None = None, measure: bool = True,
    column: str | None = None,
) -> Path:  # fmt: skip
    """Write an experiment for the folder, table or .npz at `path`; the file's path.

    pretrained: whether photos start from pretrained weights; None: when these can be had. measure: train a few steps,
    to say how long the training will take. column: of a table, what is to be learned; None: what seems to be.
    Raises RunError when the file exists already, ConfigError when the data cannot be used.
    """
    if url := url_in(path):
        raise RunError(f"{url} is a URL: download the data, and give the folder or the file where it lies")
    if not path.exists():
        raise RunError(f"there is nothing at {path}")
    if str(path).encode("utf-8", "replace").decode() != str(path):
        raise RunError(f"the name {path} is not UTF-8, and so cannot stand in a YAML file: rename it")
    target = output or Path("experiments") / f"{_name(path)}.yaml"
    if target.exists():
        raise RunError(f"{target} exists already; give another name with --output")
    found = look(path, column)
    display.line(f"{path}: {printable(found.facts)}")
    for note in found.notes:
        display.warning(note)
    if isinstance(found, RowFindings):
        for remark in found.remarks:
            display.line(printable(remark))
        text = recipe_of_rows(found)
    else:
        text = _of_images(found, display, pretrained)
    experiment = Experiment.parse(text, target.name)  # what we write must be right
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, text.encode())
    except OSError as error:
        raise RunError(f"{target} cannot be written: {error.strerror}") from None
    if measure:
        display.waiting("a few steps, to say how long the training will take: --no-time leaves them out")
        seconds = seconds_of(experiment)
        display.stop()
        if seconds is not None:
            about = f"about {duration(seconds)}" if seconds >= WORTH_A_WORD else "less than half a minute"
            display.line(f"to train it takes {about} on this machine")
    display.line(f"to train it: dltrain fit {target}")
    return target


def _of_images(found: Findings, display: Display, pretrained: bool | None) -> str:
    if pretrained is None and found.are_photos and not found.grey:
        pretrained = pretrained_available()
        if not pretrained:
            display.line("pretrained weights cannot be downloaded here: the network starts from random ones")
    return recipe(found, pretrained=bool(pretrained))


def seconds_of(experiment: Experiment) -> float | None:
    """How long a training takes, from a few steps of it: with random weights, uncompiled, and with images that are read
    as they are needed, and not before. None when that cannot be measured, whatever the reason: nothing needs it."""
    from dltrain.engine.builder import build
    from dltrain.engine.networks import without_pretrained

    cheap: dict[str, Any] = {"training.compile": False}
    if isinstance(experiment.data, ImageFolder):
        cheap |= {"data.loader": "streaming", "data.scaling": "none"}
    begun = time.monotonic()
    try:
        experiment = experiment.override_all(cheap)
        model = without_pretrained(experiment.model)
        with contextlib.closing(build(experiment.model_copy(update={"model": model}))) as trainer:
            forecast = Forecast(trainer)
            for event in trainer.run():
                if (left := forecast.seconds_left(event)) is not None:
                    return left
                if time.monotonic() - begun > PATIENCE:
                    return None
    except Exception:
        return None
    return time.monotonic() - begun  # it is trained


def _name(path: Path) -> str:
    """A name for the data: of the folder or file, without what a path cannot hold."""
    path = path.resolve()
    stem = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
    return re.sub(r"[^\w.-]+", "_", stem if path.is_file() else path.name).strip("._") or "images"


def look(path: Path, column: str | None = None) -> Findings | RowFindings:
    """Read enough of the data to describe it. column: see `write_experiment`. Raises ConfigError when it holds nothing
    that can be learned."""
    if path.is_file() and is_table(path):
        return look_at_table(path, column)
    if column is not None:
        raise ConfigError([Diagnostic(f"--target names a column of a table, and {path} is none")])
    if path.is_dir():
        _require_class_folders(path)
        dataset: Dataset = ImageFolder(root=str(path), on_error="skip")
    elif path.suffix == ".npz":
        dataset = Arrays(path=str(path))
    else:
        message = f"{path} is neither a folder of class folders nor an .npz file nor a table ({', '.join(ENDINGS)})"
        raise ConfigError([Diagnostic(message, notes=(NOT_OFFERED, "a class folder holds the images of a class"))])
    dataset, splits = divided(dataset)
    if dataset.inputs is Vector:
        return look_at_rows(dataset, splits, path)
    keys = {"name": dataset.name, "root" if path.is_dir() else "path": str(path)}
    scarce = False
    for key in ("validation", "test"):
        if key in dataset.model_fields_set:
            scarce, keys[key] = True, getattr(dataset, key)
    where = ", ".join(f"{key}: {yaml_scalar(value)}" for key, value in keys.items())
    counts = _counts(splits)
    if splits.train.files is not None:
        sizes, grey = _headers(splits.train.files)
    else:
        images = cast(ArraySource, splits.train)
        sizes, grey = [images.native[::-1]], images.channels == 1
    copies = [printable(note.text) for note in splits.notes]
    return Findings(where, splits, counts, sizes, grey, [*_notes(counts, scarce, splits.skipped), *copies])


def _counts(splits: Splits) -> Counter[str]:
    """Training images by class or by label; of numbers nothing can be counted."""
    target, values = splits.target, splits.train.targets
    if isinstance(target, Classes):
        return Counter(target.names[label] for label in values.tolist())
    if isinstance(target, Labels):
        return Counter(dict(zip(target.names, values.sum(0).tolist(), strict=True)))
    return Counter()


def _require_class_folders(path: Path) -> None:
    """Say more of a folder with images and no class folders than that it has none."""
    from dltrain.data.folders.layouts import contents_of

    entries = contents_of(path)
    images = [entry for entry in entries if entry.kind == "file" and is_image(entry.name)]
    if images and not any(entry.kind == "folder" for entry in entries):
        message = f"{len(images):,} images lie directly in {path}, and nothing says of which class they are"
        raise ConfigError([Diagnostic(message, notes=(f"move them to {path / '<class>'}, a folder per class",))])


def _headers(files: ImageFiles) -> tuple[list[tuple[int, int]], bool]:
    """Width and height of evenly spaced files, and whether all are grey. Their pixels are not decoded."""
    from dltrain.data.images.opening import opened

    sizes, modes = [], set()
    for name in files.paths[:: max(len(files) // SAMPLE, 1)]:
        try:
            with opened(Path(files.root, name), files.max_pixels) as image:
                sizes.append(image.size)
                modes.add(image.mode)
        except Exception:  # it has large texts before its pixels; see `decoding.decode`
            continue
    if not sizes:
        raise ConfigError([Diagnostic(f"the sizes of the image files in {files.root} are not found")])
    return sizes, modes <= {"1", "L", "LA", "I", "I;16"}


def _notes(counts: Counter[str], scarce: bool, damaged: Sequence[str]) -> list[str]:
    notes = []
    rarest, least = min(counts.items(), key=lambda item: item[1], default=("", 0))
    if counts and scarce:
        notes.append(f"class `{rarest}` has few images: {least} to train on, after the other splits took theirs")
    elif counts and max(counts.values()) > 4 * least:
        notes.append(f"class `{rarest}` has few images ({least}): look at its recall in what `dltrain eval` prints")
    if damaged:
        notes.append(
            f"{len(damaged)} of the files cannot be read, such as this one: {damaged[0]}; `fit` names them all"
        )
    return notes


def pretrained_available() -> bool:
    """Whether torchvision's ResNet-18 weights lie in the cache, or their server answers."""
    from http.client import HTTPException
    from urllib.request import Request, urlopen

    import torch
    from torchvision.models import ResNet18_Weights

    url = ResNet18_Weights.DEFAULT.url
    if (Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]).is_file():
        return True
    try:
        with urlopen(Request(url, method="HEAD"), timeout=3):
            return True
    except (OSError, HTTPException):
        return False
