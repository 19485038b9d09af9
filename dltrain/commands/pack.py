"""`pack`: decode and resize an experiment's images ahead of its first training."""

from __future__ import annotations

import time

from dltrain.console.display import Display
from dltrain.data.loading.packs import Pack, make_pack
from dltrain.data.loading.resources import size
from dltrain.data.loading.views import views_canvas
from dltrain.data.preprocessing import plan_preprocessing
from dltrain.data.types import Canvas, ImageFiles
from dltrain.engine.builder import at
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
    dataset = dataset.model_copy(update={"scaling": "none"})  # which spares a pass over all images
    packs = []
    with at(experiment, "data"):
        splits = dataset.load()
        pretrained = experiment.model.preprocessing()
        preprocessing = plan_preprocessing(dataset, splits.train, experiment.augmentation, pretrained)
        evaluation = views_canvas(preprocessing.evaluation, experiment.evaluation.views)
        wanted = {"train": (splits.train, preprocessing.train), "validation": (splits.validation, evaluation),
                  "test": (splits.test, evaluation)}  # fmt: skip
        for name, (source, canvas) in wanted.items():
            if source is not None and source.files is not None:
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
