"""Pictures of what a network puts out, where that looks like its inputs. Imports torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dltrain.data.loading.views import centre
from dltrain.data.types import ImageShape
from dltrain.engine.trainer import Trainer
from dltrain.runs.recording import grid_of
from dltrain.tasks.impl.objectives import answer_of

COLUMNS = 8
"""Images side by side."""


FILTERS = 64
"""Filters in their picture, at most."""
SIDE = 24
"""Pixels to which the side of a smaller filter grows, about."""


@torch.no_grad()
def filters(trainer: Trainer) -> Tensor | None:
    """What the first layer looks for, as a grid of images (3, H, W) in 0..1, a filter each, from its least weight in
    black to its greatest in white; None where the first layer with weights sees no image.

    Convolutions of several pixels, and linear layers that see all of them.
    """
    parts = trainer.parts
    if not isinstance(parts.shape, ImageShape):
        return None
    pixels = (parts.shape.channels, parts.shape.height, parts.shape.width)
    first = next((w for n, w in parts.model.named_parameters() if n.endswith("weight") and w.ndim in (2, 4)), None)
    if first is None or (first.ndim == 2 and first.shape[1] != math.prod(pixels)):
        return None
    kernels = first.detach().float()[:FILTERS]
    kernels = kernels if kernels.ndim == 4 else kernels.reshape(-1, *pixels)
    if min(kernels.shape[2:]) < 2:
        return None
    low, high = kernels.amin((1, 2, 3), keepdim=True), kernels.amax((1, 2, 3), keepdim=True)
    shown = ((kernels - low) / (high - low).clamp(min=1e-12)).cpu()
    grown = max(round(SIDE / kernels.shape[-1]), 1)
    return grid_of(shown.repeat_interleave(grown, 2).repeat_interleave(grown, 3), COLUMNS)


@torch.no_grad()
def pictures(trainer: Trainer, rows: int = 2) -> dict[str, Tensor]:
    """By name, a grid of images (3, H, W) in 0..1: rows of inputs of the split that judges the training, each with the
    reconstructions under it; and samples, from a network that makes some of nothing. Empty for other networks.

    The weights are those that are evaluated, and nothing that the training draws changes.
    """
    parts = trainer.parts
    if not parts.task.learns_inputs or not isinstance(parts.shape, ImageShape):
        return {}
    network = parts.average.model if parts.average is not None else parts.model
    split, loader = ("train", parts.train) if parts.validation is None else ("validation", parts.validation)
    batch, valid = next(iter(loader.evaluation_batches(1)))
    inputs = parts.pipeline.evaluate(centre(batch.inputs, parts.shape.height, parts.shape.width))
    was_training, sample = network.training, getattr(network, "samples", None)
    network.eval()
    with parts.autocast():
        outputs = answer_of(network(inputs))
        samples = sample(4 * COLUMNS) if sample is not None else outputs[:0]
    network.train(was_training)

    def seen(values: Tensor) -> Tensor:
        return parts.pipeline.scaling.invert(values.float()).clamp(0, 255).cpu() / 255

    columns = min(COLUMNS, valid)
    pairs = (seen(inputs), seen(parts.task.shown(outputs)))
    lines = [values[start : start + columns] for start in range(0, min(rows, valid // columns) * columns, columns)
                for values in pairs]  # fmt: skip
    found = {f"{split}/reconstructions": grid_of(torch.cat(lines), columns)}
    return found | ({"samples": grid_of(seen(parts.task.shown(samples)), COLUMNS)} if len(samples) else {})
