"""`pack`: decode and resize an experiment's images ahead of its first training."""

from __future__ import annotations

import time

from dltrain.console.display import Display
from dltrain.data.loading.packs import Pack, make_pack
from dltrain.data.loading.resources import size
from dltrain.data.types import Canvas, ImageFiles
from dltrain.engine.resolve import at, resolve
from dltrain.experiment.experiment import Experiment


def pack(experiment: Experiment, display: Display) -> list[Pack]:
    """Make the packs that `fit` and `eval` of the experiment read, and say of each where it is.

    Raises ConfigError when the data is not of image files, or some of them cannot be read.
    """
    if not hasattr(experiment.data, "cache"):
        message = f"data set `{experiment.data.name}` has no files to decode: only folders of images are packed"
        raise experiment.error("data", message)
    dataset = experiment.data
    if not dataset.cache:
        display.warning("`data.cache` is off: without `cache: true` in the experiment, `fit` decodes the files again")
        dataset = dataset.model_copy(update={"cache": True})
    packs = []
    with at(experiment, "data"):
        splits = dataset.load()
        for name, (source, canvas) in resolve(experiment, splits, rough=True).examples(splits).items():
            if source.files is not None:
                packs.append(_one(name, source.files, canvas, display))
    return packs


def _one(name: str, files: ImageFiles, canvas: Canvas, display: Display) -> Pack:
    started, made = time.perf_counter(), 0
    for made in make_pack(files, canvas):
        display.waiting(f"{name}: {made:,} of {len(files):,} images")
    found: Pack = files.packs[canvas]
    display.stop()
    how = f"made in {time.perf_counter() - started:.1f} s" if made else "there already"
    display.line(f"{name}: {len(files):,} images, {canvas}, {size(found.path.stat().st_size)}, {how}: {found.path}")
    return found
