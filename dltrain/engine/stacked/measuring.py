"""Several networks on the validation split, as one program. Imports torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from dltrain.data.loading.views import central
from dltrain.engine.stacked.network import StackedNetwork
from dltrain.engine.trainer import Trainer
from dltrain.engine.views import answer
from dltrain.tasks.impl.meters import Report

MOST = 1 << 24
"""Numbers that networks have put out before reports take them in: few large updates take less time than many."""


def measured_together(trainer: Trainer) -> bool:
    """Whether the epoch that ends now is to be measured, and the network of the training is what is measured: no
    average of its weights, nor several views of an image, some of which depend on what it answers."""
    parts = trainer.parts
    alone = parts.average is not None or not parts.evaluation.is_plain
    return trainer.evaluates and parts.validation is not None and not alone


@torch.no_grad()
def measure(network: StackedNetwork, trainers: Sequence[Trainer], members: Collection[int]) -> dict[int, Report]:
    """What the validation split says about the networks of these members, as `Trainer.evaluate` measures it."""
    lends = next(iter(members))
    first = trainers[lends]
    parts, form = first.parts, first.parts.model
    reports = {member: trainers[member].parts.task.report() for member in members}
    kept: list[tuple[Tensor, Tensor]] = []

    def outputs_of(inputs: Tensor) -> Any:
        with parts.autocast():
            return network.forward(parts.pipeline.evaluate(inputs), lends)

    def take_in() -> None:
        outputs, targets = torch.cat([each for each, _ in kept], 1), torch.cat([each for _, each in kept])
        for member, report in reports.items():
            trainers[member].parts.task.measure(report, outputs[member], targets, len(targets))
        kept.clear()

    assert parts.validation is not None
    network.gather()
    form.eval()
    for batch, valid in parts.validation.evaluation_batches(first.settings.limit_batches):
        outputs = answer(parts.task, outputs_of, batch.inputs, parts.shape, parts.evaluation, valid)
        targets = batch.targets
        if parts.task.learns_inputs:
            targets = parts.pipeline.evaluate(central(batch.inputs, parts.shape))
        kept.append((outputs[:, :valid], targets[:valid]))
        if sum(each.numel() for each, _ in kept) > MOST:
            take_in()
    if kept:
        take_in()
    form.train()
    return reports
