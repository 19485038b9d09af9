"""build: Experiment -> Trainer. Pure assembly: every part is made by its own section.

experiment -> data -> resolve -> network -> decisions -> sections -> batches -> weights -> update -> Trainer
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.data.loading.streaming import start_worker_server
from dltrain.data.types import Splits
from dltrain.engine import summary
from dltrain.engine.after_step import AfterStep, Bounds, CountedSteps, WeightAverage
from dltrain.engine.batches import Batches, build_batches, first_images
from dltrain.engine.compiling import callable_of
from dltrain.engine.decisions import Decision, Decisions, autocast_of, clip_norm, configure_torch, dtype_of, pick_device
from dltrain.engine.distributed import ALONE, Group
from dltrain.engine.layer_gradients import LayerGradients
from dltrain.engine.length import build_timed, slowed
from dltrain.engine.networks import build_network, has_idle_weights, place, start_weights, timetable_of
from dltrain.engine.parts import LoopSettings, Parts
from dltrain.engine.precision import halve_for, scaler_of
from dltrain.engine.progressive import Resizing, progressive_size
from dltrain.engine.resolve import ResolvedTraining, at, decide_all, resolve, resolve_training
from dltrain.engine.sections import BuiltSections, build_sections
from dltrain.engine.seeding import Seeds
from dltrain.engine.statistics import require_statistics
from dltrain.engine.threads import faster_threads, probes_threads
from dltrain.engine.trainer import Trainer
from dltrain.engine.updates import (
    ClosureUpdate,
    Descent,
    EstimatedUpdate,
    Gradients,
    PlainUpdate,
    SharpnessAwareUpdate,
    Update,
)  # fmt: skip
from dltrain.engine.watching.sentences import sentences
from dltrain.engine.watching.watcher import Watcher
from dltrain.experiment.experiment import Experiment
from dltrain.optim.impl.learning import Learning
from dltrain.optim.optimizers.forms import start_momentum


def build(
    experiment: Experiment,
    device: str = "auto",
    state: dict[str, Any] | None = None,
    decided: dict[str, Any] | None = None,
    group: Group = ALONE,
    plugins: dict[str, str] | None = None,
    splits: Splits | None = None,
) -> Trainer:
    """Load the data and assemble the trainer.

    device: auto, cpu, cuda, cuda:1 or mps. state: the checkpoint that will be loaded into the trainer;
    what was decided for it (preprocessing, precision, loader, ...) is kept. decided: the decisions of a run
    that began but has no checkpoint yet. group: the processes that train together; all of them call this.
    plugins: the files that parts come from, which checkpoints name. splits: the data, where `Experiment.load_data` has
    given it for an experiment with the same `data` and task: many trainings in a process read it once.
    A `training.time` becomes a number of steps, the trainer's `settings.total_steps`, by timing a few of them, and
    `training.threads: probe` a number of threads.
    Raises ConfigError when the data does not fit the experiment, and ValueError for a device that is not there.
    """
    before = (state["about"]["decisions"] if state is not None else decided) or {}
    kept = {name: Decision(**each) for name, each in before.items()}

    def assemble(experiment: Experiment, *, timing: bool = False, measured: Decisions | None = None) -> Trainer:
        about, target = state["about"] if state is not None else None, pick_device(device)
        data = splits if splits is not None else _load(experiment, about)
        training = resolve_training(resolve(experiment, data, about), data, target, kept, group)
        return _assembled(training, measured or {}, plugins or {}, fresh=state is None, timing=timing)

    measured: Decisions = {}
    if group.size == 1 and not kept and probes_threads(experiment, device):
        measured = {"threads": faster_threads(experiment, assemble)}
        experiment = experiment.override("training.threads", measured["threads"].value)
    if experiment.training.time is not None:
        return build_timed(experiment, assemble, kept.get("steps"), measured)
    return assemble(experiment, measured=measured)


def build_together(
    experiments: Sequence[Experiment],
    device: str = "auto",
    states: Sequence[dict[str, Any] | None] | None = None,
    plugins: dict[str, str] | None = None,
    splits: Splits | None = None,
    *,
    timing: bool = False,
) -> list[Trainer]:
    """Trainers that share their batches, so that the data is read once and lies on the device once.

    The experiments agree in all that a batch depends on (see `why_not_stacked`). states: the checkpoint of each that
    goes on. timing: whether the steps are only timed. Closing one of the trainers closes the data of all. For the rest,
    see build.
    """
    trainers: list[Trainer] = []
    for experiment, state in zip(experiments, states or [None] * len(experiments), strict=True):
        first = trainers[0] if trainers else None
        about = state["about"] if state is not None else first.about if first is not None else None
        splits = splits if splits is not None else _load(experiment, about)
        before = state["about"]["decisions"] if state is not None else {}
        kept = {name: Decision(**each) for name, each in before.items()}
        training = resolve_training(resolve(experiment, splits, about), splits, pick_device(device), kept)
        shared, measured = None, Decisions()
        if first is not None:
            shared = Batches(first.parts.train, first.parts.pipeline, first.parts.validation)
            measured = {name: Decision(**first.about["decisions"][name]) for name in ("loader", "workers")}
        fresh = state is None
        trainers.append(_assembled(training, measured, plugins or {}, fresh=fresh, timing=timing, shared=shared))
    return trainers


def _load(experiment: Experiment, about: dict[str, Any] | None) -> Splits:
    with at(experiment, "data"):
        return experiment.load_data(like=about["fingerprint"] if about is not None else None)


def _assembled(
    training: ResolvedTraining, measured: Decisions, plugins: dict[str, str], *, fresh: bool, timing: bool,
    shared: Batches | None = None,
) -> Trainer:  # fmt: skip
    """See build. measured: what was decided by timing steps. fresh: whether no checkpoint will be loaded.

    timing: whether the trainer's steps are only timed: they hardly move the weights, and nothing stops them early.
    shared: the batches, where another training has them.
    """
    experiment, resolved, group = training.experiment, training.resolved, training.group
    if shared is None and training.of_data["loader"].value == "streaming" and training.of_data["workers"].value:
        start_worker_server()  # it imports torch while the network is built
    network = build_network(resolved, fresh=fresh, devices=group.size)
    model = network.model
    decisions = decide_all(training, model, network.multiply_adds) | measured
    configure_torch(decisions, deterministic=experiment.training.deterministic)
    place(model, training.device, channels_last=decisions["channels_last"].value)

    sections = build_sections(training, model, training.device)
    resizing = progressive_size(experiment, model, resolved.shape, training.total_steps)
    if resizing is not None:
        require_statistics(experiment, model, resizing.smallest, group.size)
    batches = shared or build_batches(training, decisions, resizing)

    def images(count: int) -> Iterator[Tensor]:
        return first_images(training, decisions, batches, count)

    transfer = start_weights(resolved, model, images) if fresh else None
    parts = _parts(training, model, decisions, sections, batches, timing=timing)
    settings = _settings(training, resizing, timing=timing)
    splits, task = training.splits, experiment.resolved_task
    judge, judged = ("train", splits.train) if splits.validation is None else ("validation", splits.validation)
    targets = judged.targets
    if experiment.data.balance is not None:  # the frequent classes are no aim of such a training
        judge, targets = "train", splits.train.targets[batches.train.order.permutation(0).numpy()]
    return Trainer(
        parts, settings,
        about=summary.about(training, decisions, plugins),
        summary=summary.summary(training, network, settings, decisions, resizing),
        notes=summary.notes(training, decisions, transfer.notes() if transfer is not None else []),
        examples=summary.split_sizes(splits),
        initialized=transfer,
        guess=task.guess(judge, splits.target, targets),
    )  # fmt: skip


def _settings(training: ResolvedTraining, resizing: Resizing | None, *, timing: bool) -> LoopSettings:
    experiment, section = training.experiment, training.experiment.training
    stopping = section.early_stopping
    stops_by, validation = stopping.metric if stopping is not None else None, training.splits.validation is not None
    return LoopSettings(
        total_steps=training.total_steps, steps_per_epoch=training.steps_per_epoch, batch_size=section.batch,
        accumulate=section.accumulate, evaluate_every=section.evaluate_every,
        early_stopping=stopping if not timing else None,
        watched=experiment.resolved_task.decisive(stops_by, validation=validation),
        limit_batches=section.limit_batches, log_every=section.log_every,
        sizes=resizing.sizes if resizing is not None else [],
    )  # fmt: skip


def _parts(
    training: ResolvedTraining, model: nn.Module, decisions: Decisions, sections: BuiltSections, batches: Batches, *,
    timing: bool,
) -> Parts:  # fmt: skip
    """The trainer's parts, with all that changes the weights."""
    experiment, device, group = training.experiment, training.device, training.group
    precision = decisions["precision"].value
    idle = group.size > 1 and experiment.gradient.backward and has_idle_weights(model, training.resolved.shape)
    halve_for(experiment, model, sections.groups, precision)
    with at(experiment, "optimizer"):
        optimizer = experiment.optimizer.build(sections.groups, device)
    after_step, average = _after_step(training, model, optimizer, sections)
    if sections.momentum is not None:
        start_momentum(optimizer)  # it has one whatever its own setting is
    if experiment.gradient.backward:
        together = group.wrapped(model, device, unused=idle)
    else:  # processes that have no gradients to average begin alike
        together = model
        group.copy(model.state_dict().values())
    forward = callable_of(together, decisions)
    gradients = Gradients(
        parameters=[p for p in model.parameters() if p.requires_grad], forward=forward, task=sections.task,
        learning=Learning(model, optimizer, timetable_of(experiment, training.steps_per_epoch)),
        penalties=sections.penalties,
        scaler=scaler_of(precision, experiment.training.batch, device), group=group,
        accumulate=experiment.training.accumulate, autocast=autocast_of(dtype_of(precision), device),
        no_sync=getattr(together, "no_sync", nullcontext),
        layers=LayerGradients(model) if experiment.training.log_gradients else None,
        watcher=None if timing else _watcher(training, model, autocast_of(dtype_of(precision), device)),
    )  # fmt: skip
    seeds = Seeds(experiment.seed, device, group)
    return Parts(
        model=model,
        forward=forward if together is model else callable_of(model, decisions),
        autocast=gradients.autocast,
        optimizer=optimizer,
        learning=gradients.learning,
        learning_rate=slowed(sections.learning_rate) if timing else sections.learning_rate,
        momentum=sections.momentum,
        feedback=experiment.schedule.build_feedback(
            experiment.optimizer.lr, experiment.resolved_task, batches.validation is not None
        ),
        task=sections.task,
        pipeline=batches.pipeline,
        train=batches.train,
        validation=batches.validation,
        evaluation=experiment.evaluation,
        shape=training.resolved.shape,
        seeds=seeds,
        gradients=gradients,
        update=_update(experiment, model, gradients, optimizer, seeds),
        scaler=gradients.scaler,
        after_step=after_step,
        average=average,
        device=device,
        group=group,
        layers=gradients.layers,
        watcher=gradients.watcher,
    )


def _update(
    experiment: Experiment, model: nn.Module, gradients: Gradients, optimizer: torch.optim.Optimizer, seeds: Seeds
) -> Update:
    """How a batch changes the weights, which the sections of the optimizer and the gradient say."""
    section = experiment.optimizer
    if section.needs_closure:
        return ClosureUpdate(gradients, optimizer, seeds)
    clip = clip_norm(experiment.training, line_search=section.needs_closure)
    descent = Descent(gradients, optimizer, seeds, clip.value)
    if section.sam is not None:
        return SharpnessAwareUpdate(gradients, descent, seeds, section.sam.build(model))
    if (estimator := experiment.gradient.build()) is not None:
        return EstimatedUpdate(gradients, descent, seeds, model, estimator)
    return PlainUpdate(gradients, descent)


def _watcher(
    training: ResolvedTraining, model: nn.Module, autocast: Callable[[], AbstractContextManager[Any]]
) -> Watcher | None:
    """What looks at the layers of `model`, if the experiment asks for it."""
    experiment, group = training.experiment, training.group
    if (section := experiment.training.watch) is None:
        return None
    splits, part = training.splits, experiment.training.micro_batch // group.size
    guess = experiment.resolved_task.guess("train", splits.target, splits.train.targets)
    return Watcher(
        model, section, training.total_steps, lambda findings, classes: sentences(findings, experiment, classes),
        autocast=autocast, peak=experiment.optimizer.lr, part=part, leads=group.leads,
        scale=guess.loss if guess is not None else 1.0, searches=experiment.optimizer.needs_closure,
    )  # fmt: skip


def _after_step(
    training: ResolvedTraining, model: nn.Module, optimizer: torch.optim.Optimizer, sections: BuiltSections
) -> tuple[dict[str, AfterStep], WeightAverage | None]:
    """What happens after each step, and the average among it that is evaluated."""
    experiment, total_steps = training.experiment, training.total_steps
    found: dict[str, AfterStep] = {"layers": CountedSteps(model)}
    average: WeightAverage | None = None
    if experiment.optimizer.lookahead is not None:
        slow = experiment.optimizer.lookahead.build(model, total_steps)
        found["lookahead"], average = slow, slow.average(model)
    if experiment.penalties:
        found["bounds"] = Bounds(sections.penalties)
    if experiment.training.average is not None:
        average = experiment.training.average.build(model, total_steps, training.steps_per_epoch)
    else:
        average = experiment.optimizer.average(model, optimizer) or average
    if average is not None:
        found["average"] = average
    return found, average
