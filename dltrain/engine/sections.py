"""What an experiment's sections make for its network, without a weight being changed. Imports torch.

A section that does not fit the network or the data says so here, in a training and in its plan alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dltrain.engine.derivatives import require_forward_mode
from dltrain.engine.networks import timetable_of
from dltrain.engine.resolve import ResolvedTraining, at
from dltrain.optim.impl.groups import parameter_groups
from dltrain.optim.impl.learning import require_learning
from dltrain.optim.impl.penalties import Penalties
from dltrain.tasks.impl.base import BuiltTask

Curve = Callable[[int], float]
"""A number by step."""


@dataclass(frozen=True)
class BuiltSections:
    """What the parts of an update are made of."""

    groups: list[dict[str, Any]]
    """The optimizer's parameters, with their options."""
    penalties: Penalties
    task: BuiltTask
    learning_rate: Curve
    momentum: Curve | None
    """Where the schedule moves it."""


def build_sections(training: ResolvedTraining, model: nn.Module, device: torch.device) -> BuiltSections:
    """What the sections make for `model`. device: of the task. Raises ConfigError where they do not fit."""
    experiment, splits = training.experiment, training.splits
    schedule, length = experiment.schedule, (training.total_steps, training.steps_per_epoch)
    if experiment.gradient.differentiates:
        require_forward_mode(experiment, model, training.resolved.shape)
    if (unfreeze := experiment.unfreeze_at) is not None and unfreeze.in_steps(length[1]) >= length[0]:
        message = f"nothing would be unfrozen: the training has {length[0]:,} steps, {length[1]:,} an epoch"
        raise experiment.error("unfreeze_at", message, "leave `unfreeze_at` out")
    with at(experiment, "optimizer"):
        groups = parameter_groups(model, experiment.optimizer, timetable_of(experiment, length[1]))
    with at(experiment, "freeze" if experiment.freeze else "optimizer"):
        require_learning(groups, *length, key="" if experiment.freeze else "groups")
    with at(experiment, "penalties"):
        penalties = Penalties(model, experiment.penalties)
    with at(experiment, "schedule"):
        learning_rate = schedule.build(experiment.optimizer.lr, *length)
    with at(experiment, "loss"):
        task = experiment.resolved_task.build(
            experiment.loss, splits.target, device, targets=splits.train.targets,
            auxiliary=experiment.model.auxiliary_weight, combined=not experiment.evaluation.is_plain,
        )  # fmt: skip
    return BuiltSections(groups, penalties, task, learning_rate, schedule.build_momentum(*length))
