"""Pictures of what a network puts out, where that looks like its inputs. Imports torch."""

from __future__ import annotations

import torch
from torch import Tensor

from dltrain.data.loading.views import centre
from dltrain.data.types import ImageShape
from dltrain.engine.trainer import Trainer
from dltrain.runs.recording import grid_of
from dltrain.tasks.impl.objectives import answer_of

COLUMNS = 8
"""Images side by side."""


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
