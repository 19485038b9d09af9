"""Measuring a network: its metrics on a split, and the statistics of its norms where its weights are new.

Imports torch: import it where a training is built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.data.loading.choosing import Loader
from dltrain.data.loading.views import central
from dltrain.engine.parts import LoopSettings, Parts
from dltrain.engine.views import answer
from dltrain.layers.impl.statistics import measuring
from dltrain.tasks.impl.meters import Report

MOST = 100
"""Batches that statistics are measured on, in a longer epoch: the mean of more changes little."""


@torch.no_grad()
def evaluate(
    network: nn.Module, forward: Callable[[Tensor], Any], loader: Loader, parts: Parts,
    limit_batches: int | None = None,
) -> Report:  # fmt: skip
    """Measure a network on every example of a loader, in file order, or on a sample of so many batches."""

    def outputs_of(images: Tensor) -> Any:
        with parts.autocast():
            return forward(parts.pipeline.evaluate(images))

    task = parts.task
    report = task.report()
    was_training = network.training
    network.eval()
    for batch, valid in loader.evaluation_batches(limit_batches):
        outputs = answer(task, outputs_of, batch.inputs, parts.shape, parts.evaluation, valid)
        targets = batch.targets
        if task.learns_inputs:
            targets = parts.pipeline.evaluate(central(batch.inputs, parts.shape))
        task.measure(report, outputs, targets, valid)
    network.train(was_training)
    return report


@torch.no_grad()
def measure_statistics(network: nn.Module, parts: Parts, settings: LoopSettings, step: int) -> None:
    """The running statistics of an average of weights become the means over the batches of the epoch that ends after
    `step` steps, as they were augmented, and as large as they were computed (the last MOST of them).

    Those of norms that are frozen stay. The network is in evaluation mode: dropout is silent.
    """
    frozen = set(parts.learning.resting((step - 1) / settings.steps_per_epoch))
    twins = zip(parts.model.modules(), network.modules(), strict=True)
    start = max(step - min(settings.steps_per_epoch, MOST), 0)
    batches = parts.train.batches(start, aside=True)
    with measuring(network, {twin for layer, twin in twins if layer in frozen}) as numbers:
        for number in range(start, step):
            inputs, _ = parts.pipeline.train(next(batches), number)
            for part in inputs.chunk(settings.accumulate):
                next(numbers)
                with parts.autocast():
                    network(part)
    batches.close()
    parts.group.copy(network.buffers())
