"""resolve: what a training is before there is a network: data, sizes, steps, and what is decided. No weights; frozen.

    experiment, splits ------> Resolved: what a network is made for, and what its images become
    a checkpoint's `about` --> Resolved, the same
    Resolved, splits, device -> ResolvedTraining: steps, decisions about the data; `decide_all` adds the network's

`fit`, `plan`, `pack`, `eval` and `predict` start here, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from dltrain.config import ConfigError
from dltrain.data.loading.choosing import choose_loader, choose_workers
from dltrain.data.loading.resources import usable_cores
from dltrain.data.loading.views import views_layout
from dltrain.data.preprocessing import preprocessing_from
from dltrain.data.targets import TargetSpec, target_from
from dltrain.data.types import ImageShape, InputSpec, Preprocessing, Source, Splits
from dltrain.engine.decisions import Decision, Decisions, continue_threads, decide
from dltrain.engine.distributed import ALONE, Group
from dltrain.engine.length import count_steps
from dltrain.engine.stem import of_stem
from dltrain.experiment.experiment import Experiment
from dltrain.tasks.outputs import Output

OF_DEVICE = ("device", "devices", "compile", "graph", "threads", "loader", "workers")
"""Decisions that are made anew when a run goes on on another kind of device."""


@dataclass(frozen=True)
class Resolved:
    """What a network is made for, and what examples become before it sees them."""

    experiment: Experiment
    target: TargetSpec
    preprocessing: Preprocessing

    @property
    def shape(self) -> InputSpec:
        """What the network takes."""
        return self.preprocessing.shape

    @property
    def outputs(self) -> Output:
        """What the network must put out."""
        return self.experiment.resolved_task.output(self.target)

    def examples(self, splits: Splits) -> dict[str, tuple[Source, Any]]:
        """The splits that there are, each with the layout of its examples."""
        layout = views_layout(self.preprocessing.evaluation, self.experiment.evaluation.views)
        found = {"train": (splits.train, self.preprocessing.train), "validation": (splits.validation, layout),
                 "test": (splits.test, layout)}  # fmt: skip
        return {name: (source, layout) for name, (source, layout) in found.items() if source is not None}


@dataclass(frozen=True)
class ResolvedTraining:
    """What is known of a training before its network is made."""

    resolved: Resolved
    splits: Splits
    device: torch.device
    steps_per_epoch: int
    total_steps: int
    of_data: Decisions
    """How images reach the device, and the network."""
    kept: Decisions = field(default_factory=dict)
    """What was decided before, in a run that goes on."""
    group: Group = ALONE
    """The processes that train together."""

    @property
    def experiment(self) -> Experiment:
        """What is trained."""
        return self.resolved.experiment

    @property
    def goes_on(self) -> bool:
        """Whether all was decided before, for this kind of device."""
        return _is_for(self.kept, self.device)

    def lasting(self, steps: int) -> ResolvedTraining:
        """The same, of so many steps."""
        resolved = replace(self.resolved, experiment=self.experiment.lasting(steps))
        return replace(self, resolved=resolved, total_steps=steps)


@contextmanager
def at(experiment: Experiment, key: str) -> Iterator[None]:
    """Give the mistakes that a part finds the place of its section in the experiment's file."""
    try:
        yield
    except ConfigError as error:
        raise experiment.located(error, key) from None


def resolve(
    experiment: Experiment, splits: Splits, about: dict[str, Any] | None = None, *, rough: bool = False
) -> Resolved:
    """What the network of an experiment is made for.

    about: of the checkpoint that goes on, whose preprocessing is kept. rough: without the statistics of images, which
    spares a pass over all of them. Raises ConfigError when the data does not fit the experiment.
    """
    task = experiment.resolved_task
    if (misfit := task.misfit(splits.target)) is not None:
        raise experiment.error("task" if experiment.span("task") is not None else "data", misfit)
    with at(experiment, "data"):
        if about is None:
            pretrained = experiment.model.preprocessing()
            preprocessing = experiment.data.preprocess(splits, experiment.augmentation, pretrained, rough=rough)
        else:
            _require_data_of(about, experiment, splits)
            preprocessing = preprocessing_from(about["preprocessing"])
    return Resolved(experiment, splits.target, preprocessing)


def resolve_checkpoint(about: dict[str, Any], name: str) -> Resolved:
    """What the network of a checkpoint was made for. name: of the checkpoint, in messages."""
    experiment = Experiment.parse(about["experiment"], name)
    return Resolved(experiment, target_from(about["target"]), preprocessing_from(about["preprocessing"]))


def resolve_training(
    resolved: Resolved, splits: Splits, device: torch.device, kept: Decisions | None = None, group: Group = ALONE
) -> ResolvedTraining:
    """The steps of a training, and how its images reach the device. kept: what was decided before.

    Raises ConfigError for batches that the data or the processes cannot fill.
    """
    experiment, examples = resolved.experiment, len(splits.train)
    steps_per_epoch, total_steps = count_steps(experiment, examples, group.size)
    whole: Decisions = {}
    if experiment.training.batch_size == "all":
        resolved = replace(resolved, experiment=experiment.settled({"training.batch_size": examples}))
        whole = {"batch_size": Decision(examples, "all training examples: an epoch is a step")}
    kept = dict(kept or {})
    if "steps" in kept and kept["steps"].value != total_steps:  # it has become longer
        del kept["steps"]
    of_data = whole | (kept if _is_for(kept, device) else _decide_data(resolved, splits, device))
    return ResolvedTraining(resolved, splits, device, steps_per_epoch, total_steps, of_data, kept, group)


def decide_all(training: ResolvedTraining, model: nn.Module, multiply_adds: int) -> Decisions:
    """All that is decided for a training with this network. multiply_adds: of an image."""
    experiment, kept, device = training.experiment, training.kept, training.device
    if training.goes_on:
        decisions = kept | {"device": Decision(str(device), kept["device"].reason)}
        decisions["threads"] = continue_threads(kept["threads"])
        return _shared(decisions, training)
    images, gradient = training.total_steps * experiment.training.batch, experiment.gradient
    decisions = decide(
        experiment.training, device, model, multiply_adds, images, line_search=experiment.optimizer.needs_closure,
        compares_losses=gradient.compares_losses, compilable=not gradient.differentiates,
    )  # fmt: skip
    if not isinstance(training.resolved.shape, ImageShape):
        decisions["channels_last"] = Decision(False, "there are no channels")
    decisions |= training.of_data
    chosen = experiment.resolved_task.chosen(validation=training.splits.validation is not None)
    decisions |= {name: Decision(*each) for name, each in chosen.items()}
    decisions |= of_stem(experiment.model, training.resolved.shape, training.resolved.outputs, multiply_adds)
    # Of a run from another kind of device, what is computed stays; how it is computed follows the device.
    decisions |= {name: decision for name, decision in kept.items() if name not in OF_DEVICE}
    return _shared(decisions, training)


def _is_for(kept: Decisions, device: torch.device) -> bool:
    return bool(kept) and torch.device(kept["device"].value).type == device.type


def _require_data_of(about: dict[str, Any], experiment: Experiment, splits: Splits) -> None:
    """Raise ConfigError when the data is not that of a checkpoint."""
    if about["fingerprint"] != splits.fingerprint:
        message = f"the data has changed since the run began ({about['fingerprint']} -> {splits.fingerprint})"
        raise experiment.error("data", message, "start a new run: dltrain fit on the run's experiment.yaml")
    if (before := target_from(about["target"])).mark != splits.target.mark:
        message = f"the checkpoint's {before.kind} are not those of the data"
        raise experiment.error("data", message, "start a new run")


def _decide_data(resolved: Resolved, splits: Splits, device: torch.device) -> Decisions:
    """How the images reach the device, and the network."""
    data, preprocessing = resolved.experiment.data, resolved.preprocessing
    asked, processes = data.loading
    loader = Decision(*choose_loader(splits.train, preprocessing.train, device, asked))
    workers = Decision(0, "resident data needs none")
    if loader.value != "resident":
        workers = Decision(*choose_workers(splits.train, processes))
    pretrained = resolved.experiment.model.preprocessing() is not None
    chosen = data.chosen(preprocessing, pretrained=pretrained)
    return {"loader": loader, "workers": workers, **{name: Decision(*each) for name, each in chosen.items()}}


def _shared(decisions: Decisions, training: ResolvedTraining) -> Decisions:
    """The first process's decisions for all, each with its own device."""
    group, device = training.group, training.device
    decisions = group.broadcast(decisions)
    if group.size == 1:
        return {name: decision for name, decision in decisions.items() if name != "devices"}
    each = training.experiment.training.batch // group.size
    decisions["device"] = Decision(str(device), decisions["device"].reason)
    decisions["devices"] = Decision(group.size, f"each takes {each} {training.resolved.shape.one}s of a batch")
    if "graph" in decisions:
        decisions["graph"] = Decision(False, "gradients are averaged between the kernels of a step")
    if device.type == "cpu":
        threads = max(usable_cores() // group.local_size, 1)
        decisions["threads"] = Decision(threads, "this process's share of the cores")
    return decisions
