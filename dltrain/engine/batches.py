"""The data of a training as its loop takes it: loaders, and the pipeline behind them. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor

from dltrain.data.augmentation.base import AugmentationContext
from dltrain.data.loading.choosing import Loader, make_loader
from dltrain.data.loading.pipeline import Pipeline, build_pipeline
from dltrain.data.loading.scaling import pixel_covariance
from dltrain.data.types import WHOLE, ImageShape, ImageSource, Share
from dltrain.engine.decisions import Decisions
from dltrain.engine.progressive import Resizing
from dltrain.engine.resolve import ResolvedTraining, at


@dataclass(frozen=True)
class Batches:
    """Batches of the training split, what becomes of them, and batches of the validation split."""

    train: Loader
    pipeline: Pipeline
    validation: Loader | None

    def close(self) -> None:
        """Free the loaders' processes."""
        self.train.close()
        if self.validation is not None:
            self.validation.close()


def build_batches(training: ResolvedTraining, decisions: Decisions, resizing: Resizing | None) -> Batches:
    """This process's share of the batches. resizing: what gives the images of a step their size."""
    share, examples = training.group.share, training.resolved.examples(training.splits)
    train, pipeline = _training_batches(training, decisions, resizing, share)
    with at(training.experiment, "data"):
        loader = _loader(training, decisions, share)
        validation = None
        if "validation" in examples:
            size = _evaluation_batch(training, len(examples["validation"][0]))
            validation = loader(*examples["validation"], batch_size=size)
    return Batches(train, pipeline, validation)


def first_images(training: ResolvedTraining, decisions: Decisions, batches: Batches, count: int) -> Iterator[Tensor]:
    """At least `count` of the first training images, augmented and scaled, in whole batches (B, C, H, W) of full size:
    of several processes each sees all of them."""
    loader, pipeline = batches.train, batches.pipeline
    if training.group.size > 1:
        loader, pipeline = _training_batches(training, decisions, None, WHOLE)
    found = loader.batches(0)
    try:
        for step in range(-(-count // loader.batch_size)):
            yield pipeline.full(next(found), step)[0]
    finally:
        found.close()
        if loader is not batches.train:
            loader.close()


def _evaluation_batch(training: ResolvedTraining, examples: int) -> int:
    """Examples of a batch in evaluation: as in training, but where a step takes the whole training part, no more than
    the split has, as a last batch is completed by repeating."""
    batch, devices = training.experiment.training.batch, training.group.size
    whole = batch == len(training.splits.train)
    return min(batch, -(-examples // devices) * devices) if whole else batch


def _loader(training: ResolvedTraining, decisions: Decisions, share: Share) -> Callable[..., Loader]:
    return partial(
        make_loader, decisions["loader"].value, batch_size=training.experiment.training.batch,
        seed=training.experiment.seed, device=training.device, workers=decisions["workers"].value, share=share,
    )  # fmt: skip


def _training_batches(
    training: ResolvedTraining, decisions: Decisions, resizing: Resizing | None, share: Share
) -> tuple[Loader, Pipeline]:
    with at(training.experiment, "augmentation"):
        pipeline = _pipeline(training, decisions, resizing, share)
    with at(training.experiment, "data"):
        source, layout = training.resolved.examples(training.splits)["train"]
        make, balance = _loader(training, decisions, share), training.experiment.data.balance_power
        loader = make(source, layout, first=pipeline.first, balance=balance)
    return loader, pipeline.behind(does_first=loader.does_first, beside_workers=loader.decodes_aside)


def _pipeline(training: ResolvedTraining, decisions: Decisions, resizing: Resizing | None, share: Share) -> Pipeline:
    experiment, preprocessing, device = training.experiment, training.resolved.preprocessing, training.device
    needs = any(augmentation.needs_covariance for augmentation in experiment.augmentation)
    images = cast(ImageSource, training.splits.train)  # augmentations that need it are of images
    covariance = pixel_covariance(images, preprocessing.train).to(device) if needs else None
    context = AugmentationContext(
        shape=cast(ImageShape, preprocessing.shape), target=training.resolved.target, seed=experiment.seed,
        mean=torch.tensor(preprocessing.scaling.mean, device=device),
        std=torch.tensor(preprocessing.scaling.std, device=device), covariance=covariance,
    )  # fmt: skip
    scaling = preprocessing.scaling.on(device, channels_last=decisions["channels_last"].value)
    return build_pipeline(experiment.augmentation, context, scaling, share, resizing)
