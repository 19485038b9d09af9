"""build: Experiment -> Trainer. Pure assembly: every part is made by its own section."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.config import ConfigError
from dltrain.data.augmentation.base import AugmentationContext
from dltrain.data.loading.choosing import Loader, choose_loader, choose_workers, make_loader
from dltrain.data.loading.pipeline import Pipeline, build_pipeline
from dltrain.data.loading.resources import usable_cores
from dltrain.data.loading.scaling import pixel_covariance
from dltrain.data.loading.streaming import start_worker_server
from dltrain.data.loading.views import views_canvas
from dltrain.data.preprocessing import Preprocessing, plan_preprocessing
from dltrain.data.random import derive_seed
from dltrain.data.targets import target_from
from dltrain.data.types import WHOLE, ImageShape, InputSpec, Share, Splits
from dltrain.engine.after_step import AfterStep, Bounds, CountedSteps, WeightAverage
from dltrain.engine.compiling import callable_of
from dltrain.engine.decisions import (
    PURE,
    Decision,
    Decisions,
    autocast_of,
    clip_norm,
    configure_torch,
    continue_threads,
    count_multiply_adds,
    decide,
    dtype_of,
    pick_device,
)
from dltrain.engine.distributed import ALONE, Group
from dltrain.engine.inputs import of_data, of_stem
from dltrain.engine.length import build_timed, count_steps, note_decision
from dltrain.engine.parts import LoopSettings, Parts
from dltrain.engine.precision import halved, scaler_of
from dltrain.engine.progressive import progressive_size
from dltrain.engine.seeding import Seeds, seed_layers
from dltrain.engine.statistics import require_statistics
from dltrain.engine.threads import faster_threads, probes_threads
from dltrain.engine.trainer import Trainer
from dltrain.engine.transfer import initialize
from dltrain.engine.updates import ClosureUpdate, Descent, Gradients, PlainUpdate, SharpnessAwareUpdate, Update
from dltrain.errors import Note
from dltrain.experiment.experiment import Experiment
from dltrain.models.base import Model
from dltrain.optim.impl.groups import parameter_groups
from dltrain.optim.impl.learning import Learning, freeze, require_learning
from dltrain.optim.impl.penalties import Penalties
from dltrain.optim.optimizers.forms import start_momentum
from dltrain.tasks.outputs import Output

OF_DEVICE = ("device", "devices", "compile", "graph", "threads", "loader", "workers")
"""Decisions that are made anew when a run goes on on another kind of device."""


def build(
    experiment: Experiment,
    device: str = "auto",
    state: dict[str, Any] | None = None,
    decided: dict[str, Any] | None = None,
    group: Group = ALONE,
) -> Trainer:
    """Load the data and assemble the trainer.

    device: auto, cpu, cuda, cuda:1 or mps. state: the checkpoint that will be loaded into the trainer;
    what was decided for it (preprocessing, precision, loader, ...) is kept. decided: the decisions of a run
    that began but has no checkpoint yet. group: the processes that train together; all of them call this.
    A `training.time` becomes a number of steps, the trainer's `settings.total_steps`, by timing a few of them, and
    `training.threads: probe` a number of threads.
    Raises ConfigError when the data does not fit the experiment, and ValueError for a device that is not there.
    """
    before = (state["about"]["decisions"] if state is not None else decided) or {}
    kept = {name: Decision(**each) for name, each in before.items()}

    def assemble(experiment: Experiment) -> Trainer:
        return _assembled(experiment, device, state, kept, group)

    threads = None
    if group.size == 1 and not kept and probes_threads(experiment, device):
        threads = faster_threads(experiment, assemble)
        experiment = experiment.override("training.threads", threads.value)
    timed = experiment.training.time is not None
    trainer = build_timed(experiment, assemble, kept.get("steps")) if timed else assemble(experiment)
    if threads is not None:
        note_decision(trainer, "threads", threads)
    return trainer


def _assembled(
    experiment: Experiment, device: str, state: dict[str, Any] | None, kept: Decisions, group: Group
) -> Trainer:
    """See build. kept: what was decided before."""
    target = pick_device(device)
    with at(experiment, "data"):
        about = state["about"] if state is not None else None
        splits = experiment.data.load(like=about and about["fingerprint"])
        preprocessing = _preprocessing(experiment, splits, about)
    training, shape, task = experiment.training, preprocessing.shape, experiment.resolved_task
    outputs = task.output(splits.target)
    batch_size = training.batch_size
    steps_per_epoch, total_steps = count_steps(experiment, len(splits.train), group.size)
    if "steps" in kept and kept["steps"].value != total_steps:  # it has become longer
        kept = {name: decision for name, decision in kept.items() if name != "steps"}
    elsewhere = bool(kept) and torch.device(kept["device"].value).type != target.type
    for_data = kept if kept and not elsewhere else data_decisions(experiment, splits, preprocessing, target)
    if for_data["loader"].value == "streaming" and for_data["workers"].value:
        start_worker_server()  # it imports torch while the network is built
    model, multiply_adds = build_network(experiment, shape, outputs, fresh=state is None, devices=group.size)
    if kept and not elsewhere:
        decisions = kept | {"device": Decision(str(target), kept["device"].reason)}
        decisions["threads"] = continue_threads(kept["threads"])
    else:
        line_search = experiment.optimizer.needs_closure
        images = total_steps * batch_size
        decisions = decide(training, target, model, multiply_adds, images, line_search=line_search) | for_data
        decisions |= of_stem(experiment.model, shape, outputs, multiply_adds)
        if elsewhere:  # what is computed stays; how it is computed follows the device
            decisions |= {name: decision for name, decision in kept.items() if name not in OF_DEVICE}
    decisions = _shared(decisions, group, batch_size, target)
    configure_torch(decisions, deterministic=training.deterministic)

    model.to(target)
    if decisions["channels_last"].value:
        model.to(memory_format=torch.channels_last)
    loader = partial(
        make_loader, decisions["loader"].value, batch_size=batch_size, seed=experiment.seed, device=target,
        workers=decisions["workers"].value,
    )  # fmt: skip
    with at(experiment, "optimizer"):
        groups = parameter_groups(model, experiment.optimizer)
        require_learning(groups, total_steps, steps_per_epoch)
        optimizer = experiment.optimizer.build(groups, target)
    with at(experiment, "penalties"):
        penalties = Penalties(model, experiment.penalties)
    with at(experiment, "schedule"):
        learning_rate = experiment.schedule.build(experiment.optimizer.lr, total_steps, steps_per_epoch)
    with at(experiment, "loss"):
        built = task.build(
            experiment.loss, splits.target, target, targets=splits.train.targets,
            auxiliary=experiment.model.auxiliary_weight, combined=not experiment.evaluation.is_plain,
        )  # fmt: skip

    def training_data(share: Share) -> tuple[Loader, Pipeline]:
        with at(experiment, "augmentation"):
            pipeline = _pipeline(experiment, preprocessing, splits, target, decisions, share)
        with at(experiment, "data"):
            train = loader(splits.train, preprocessing.train, first=pipeline.first, share=share)
        if train.does_first:
            pipeline.leave_out_first()
        pipeline.beside_workers = train.decodes_aside
        return train, pipeline

    train, pipeline = training_data(group.share)
    with at(experiment, "data"):
        canvas, unseen = views_canvas(preprocessing.evaluation, experiment.evaluation.views), splits.validation
        validation = loader(unseen, canvas, share=group.share) if unseen is not None else None
    notes = list(preprocessing.remarks)
    pipeline.resize = resizing = progressive_size(experiment, model, shape, total_steps)
    if resizing is not None:
        require_statistics(experiment, model, resizing.smallest, group.size)
    if state is None:
        with at(experiment, "model.initialization"):
            _start_weights(experiment, model, lambda: training_data(WHOLE) if group.size > 1 else (train, pipeline))
        section = without_pretrained(experiment.model)
        loaded = initialize(
            experiment, model, splits.classes, lambda count: section.make(shape, replace(outputs, count=count))
        )
        notes += [Note("info", "initialized", line) for line in loaded]
    idle = group.size > 1 and has_idle_weights(model, shape)
    precision = decisions["precision"].value
    dtype = dtype_of(precision)
    if precision.startswith(PURE):
        optimizer = halved(experiment, model, dtype, target)
    scaler = scaler_of(precision, batch_size, target)
    after_step, average = _after_step(experiment, model, optimizer, penalties, total_steps, steps_per_epoch)
    momentum = experiment.schedule.build_momentum(total_steps, steps_per_epoch)
    if momentum is not None:
        start_momentum(optimizer)  # it has one whatever its own setting is
    together = group.wrapped(model, target, unused=idle)
    forward = callable_of(together, decisions)
    learning, seeds = Learning(model, optimizer, experiment.optimizer.groups), Seeds(experiment.seed, target, group)
    gradients = Gradients(
        [p for p in model.parameters() if p.requires_grad], forward, built, learning, penalties, scaler, group,
        training.accumulate, autocast_of(dtype, target), getattr(together, "no_sync", nullcontext),
    )  # fmt: skip
    clip = clip_norm(training, line_search=experiment.optimizer.needs_closure).value
    parts = Parts(
        model=model,
        forward=forward if together is model else callable_of(model, decisions),
        group=group,
        seeds=seeds,
        optimizer=optimizer,
        update=_update(experiment, model, gradients, optimizer, seeds, clip),
        scaler=scaler,
        after_step=after_step,
        average=average,
        learning=learning,
        learning_rate=learning_rate,
        momentum=momentum,
        feedback=experiment.schedule.build_feedback(experiment.optimizer.lr, task, validation is not None),
        task=built,
        pipeline=pipeline,
        train=train,
        validation=validation,
        device=target,
        shape=shape,
        evaluation=experiment.evaluation,
        autocast=autocast_of(dtype, target),
    )
    stopping = training.early_stopping
    stops_by = stopping.metric if stopping is not None else None
    watched = task.decisive(stops_by, validation=validation is not None)
    settings = LoopSettings(
        total_steps=total_steps, steps_per_epoch=steps_per_epoch, batch_size=batch_size,
        accumulate=training.accumulate, evaluate_every=training.evaluate_every,
        early_stopping=stopping, watched=watched, limit_batches=training.limit_batches, log_every=training.log_every,
        sizes=resizing.sizes if resizing is not None else [],
    )  # fmt: skip
    trainer = Trainer(parts, settings)
    trainer.about = {
        "experiment": experiment.dump(),
        "target": splits.target.to_dict(),
        "preprocessing": preprocessing.to_dict(),
        "decisions": {name: asdict(decision) for name, decision in decisions.items()},
        "fingerprint": splits.fingerprint,
        "skipped": list(splits.skipped),
        "has_test": splits.test is not None,
    }
    trainer.examples = split_sizes(splits)
    judge = "train" if splits.validation is None else "validation"
    trainer.guess = task.guess(judge, splits.target, (splits.validation or splits.train).targets)
    trainer.summary = _summary(experiment, splits, preprocessing, model, multiply_adds, settings, decisions)
    if resizing is not None:
        trainer.summary["progressive_size"] = str(resizing)
    notes += [Note("info", "schedule", text) for text in experiment.schedule.remarks(total_steps, steps_per_epoch)]
    trainer.notes = [*splits.remarks, *downgrades(experiment, decisions, trainer.examples), *notes]
    return trainer


def _after_step(
    experiment: Experiment, model: nn.Module, optimizer: torch.optim.Optimizer, penalties: Penalties, total_steps: int,
    steps_per_epoch: int,
) -> tuple[dict[str, AfterStep], WeightAverage | None]:  # fmt: skip
    """What happens after each step, and the average among it that is evaluated."""
    found: dict[str, AfterStep] = {"layers": CountedSteps(model)}
    average: WeightAverage | None = None
    if experiment.optimizer.lookahead is not None:
        slow = experiment.optimizer.lookahead.build(model, total_steps)
        found["lookahead"], average = slow, slow.average(model)
    if experiment.penalties:
        found["bounds"] = Bounds(penalties)
    if experiment.training.average is not None:
        average = experiment.training.average.build(model, total_steps, steps_per_epoch)
    else:
        average = experiment.optimizer.average(model, optimizer) or average
    if average is not None:
        found["average"] = average
    return found, average


def _update(
    experiment: Experiment, model: nn.Module, gradients: Gradients, optimizer: torch.optim.Optimizer, seeds: Seeds,
    clip: float | None,
) -> Update:  # fmt: skip
    """How a batch changes the weights, which the optimizer's section says."""
    section = experiment.optimizer
    if section.needs_closure:
        return ClosureUpdate(gradients, optimizer, seeds)
    descent = Descent(gradients, optimizer, seeds, clip)
    if section.sam is not None:
        return SharpnessAwareUpdate(gradients, descent, seeds, section.sam.build(model))
    return PlainUpdate(gradients, descent)


def _shared(decisions: Decisions, group: Group, batch_size: int, device: torch.device) -> Decisions:
    """The first process's decisions for all, each with its own device."""
    decisions = group.broadcast(decisions)
    if group.size == 1:
        return {name: decision for name, decision in decisions.items() if name != "devices"}
    decisions["device"] = Decision(str(device), decisions["device"].reason)
    decisions["devices"] = Decision(group.size, f"each takes {batch_size // group.size} images of a batch")
    if "graph" in decisions:
        decisions["graph"] = Decision(False, "gradients are averaged between the kernels of a step")
    if device.type == "cpu":
        threads = max(usable_cores() // group.local_size, 1)
        decisions["threads"] = Decision(threads, "this process's share of the cores")
    return decisions


@contextmanager
def at(experiment: Experiment, key: str) -> Iterator[None]:
    """Give the mistakes that a part finds the place of its section in the experiment's file."""
    try:
        yield
    except ConfigError as error:
        raise experiment.located(error, key) from None


def _preprocessing(experiment: Experiment, splits: Splits, about: dict[str, Any] | None) -> Preprocessing:
    if about is None:
        pretrained = experiment.model.preprocessing()
        return plan_preprocessing(experiment.data, splits.train, experiment.augmentation, pretrained)
    if about["fingerprint"] != splits.fingerprint:
        message = f"the data has changed since the run began ({about['fingerprint']} -> {splits.fingerprint})"
        raise experiment.error("data", message, "start a new run: dltrain fit on the run's experiment.yaml")
    if (before := target_from(about["target"])).mark != splits.target.mark:
        message = f"the checkpoint's {before.kind} are not those of the data"
        raise experiment.error("data", message, "start a new run")
    return Preprocessing.from_dict(about["preprocessing"])


def build_network(
    experiment: Experiment, shape: ImageShape, outputs: Output, *, fresh: bool, devices: int = 1
) -> tuple[nn.Module, int]:
    """The model on the CPU (the same weights on every device), and its multiply-adds an image.

    devices: how many share a batch. Raises ConfigError for a network that cannot be trained on what one sees at once.
    """
    section = experiment.model if fresh else without_pretrained(experiment.model)
    seed_layers(derive_seed(experiment.seed, "weights"), torch.device("cpu"))
    with at(experiment, "model"):
        model = section.make(shape, outputs)
    freeze(model, experiment.optimizer.groups)
    require_statistics(experiment, model, shape, devices)
    return model, count_multiply_adds(model, shape)


def has_idle_weights(model: nn.Module, shape: InputSpec) -> bool:
    """Whether a training step gives some weights no gradient; yes where that cannot be seen on the meta device."""
    copied = copy.deepcopy(model).to("meta").train()
    try:
        outputs = copied(shape.example(2, "meta"))
        torch.autograd.backward([output.sum() for output in (outputs if isinstance(outputs, tuple) else (outputs,))])
    except (NotImplementedError, RuntimeError):
        return True
    return any(weight.requires_grad and weight.grad is None for weight in copied.parameters())


def _start_weights(
    experiment: Experiment, model: nn.Module, training_data: Callable[[], tuple[Loader, Pipeline]]
) -> None:
    """Set what the weights start from: `model.initialization`, and what the network takes from training images.

    training_data: what gives whole batches.
    """

    def images(count: int) -> Iterator[Tensor]:
        train, pipeline = training_data()
        batches = train.batches(0)
        try:
            for step in range(-(-count // experiment.training.batch_size)):
                yield pipeline.full(next(batches), step)[0]
        finally:
            batches.close()

    initialization = experiment.model.initialization
    if initialization is not None:
        first = next(images(1)) if initialization.needs_images else None
        initialization.apply(model, experiment.seed, first)
    experiment.model.start(model, images)


def without_pretrained(model: Model) -> Model:
    """The same network with random weights: a checkpoint's will replace them, nothing is downloaded."""
    return model.model_copy(update={"pretrained": False}) if getattr(model, "pretrained", False) else model


def data_decisions(
    experiment: Experiment, splits: Splits, preprocessing: Preprocessing, device: torch.device
) -> Decisions:
    """How the images reach the device, and the network."""
    loader = Decision(*choose_loader(splits.train, preprocessing.train, device, experiment.data.loader))
    workers = Decision(0, "resident data needs none")
    if loader.value != "resident":
        workers = Decision(*choose_workers(splits.train, experiment.data.workers))
    pretrained = experiment.model.preprocessing() is not None
    return {"loader": loader, "workers": workers} | of_data(experiment.data, preprocessing, pretrained=pretrained)


def _pipeline(
    experiment: Experiment, preprocessing: Preprocessing, splits: Splits, device: torch.device, decisions: Decisions,
    share: Share,
) -> Pipeline:  # fmt: skip
    needs = any(augmentation.needs_covariance for augmentation in experiment.augmentation)
    covariance = pixel_covariance(splits.train, preprocessing.train).to(device) if needs else None
    context = AugmentationContext(
        shape=preprocessing.shape, target=splits.target, seed=experiment.seed,
        mean=torch.tensor(preprocessing.scaling.mean, device=device),
        std=torch.tensor(preprocessing.scaling.std, device=device), covariance=covariance,
    )  # fmt: skip
    scaling = preprocessing.scaling.on(device, channels_last=decisions["channels_last"].value)
    return build_pipeline(experiment.augmentation, context, scaling, share)


def _summary(
    experiment: Experiment, splits: Splits, preprocessing: Preprocessing, model: nn.Module, multiply_adds: int,
    settings: LoopSettings, decisions: Decisions,
) -> dict[str, str]:  # fmt: skip
    """What the run will do, a line each."""
    counts = ", ".join(f"{count:,} {name}" for name, count in split_sizes(splits).items())
    parameters, targets = sum(p.numel() for p in model.parameters()), f"{len(splits.target.names)} {splits.target.kind}"
    lines = {
        "data": f"{experiment.data.name}: {counts}, {targets}, {preprocessing.shape}",
        "model": f"{experiment.model.name}: {parameters:,} parameters, {multiply_adds / 1e6:,.2f}M multiply-adds",
        "training": f"{settings.epochs} epochs of {settings.steps_per_epoch} steps, batch {settings.batch_size}",
    }
    if any(group.frozen for group in experiment.optimizer.groups):
        frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
        lines["frozen"] = f"{frozen:,} of the {parameters:,} parameters never learn"
    adaptation = getattr(model, "adaptation", None)
    for line in adaptation.lines() if adaptation is not None else ():
        key, _, change = line.partition(": ")
        lines[f"model.{key}"] = change
    if splits.train.native is None:
        lines["images"] = f"training {preprocessing.train}; evaluation {preprocessing.evaluation}"
    return {**lines, **{name: str(decision) for name, decision in decisions.items()}}


def downgrades(experiment: Experiment, decisions: Decisions, examples: dict[str, int]) -> list[Note]:
    """What the experiment asks for and does not get, and what it leaves out. examples: of each split."""
    notes, training = [], experiment.training
    seen, unseen = (training.limit_batches or 0) * training.batch_size, examples.get("validation", 0)
    if 0 < seen < unseen:
        measured = f"`limit_batches` measures {seen:,} of {unseen:,} validation examples"
        text = f"{measured}: the same ones each time, with all classes in proportion"
        notes.append(Note("info", "limited", text))
    if experiment.training.compile is True and not decisions["compile"].value:
        notes.append(Note("warning", "not_compiled", f"not compiled: {decisions['compile'].reason}"))
    if experiment.training.graph is True and not decisions["graph"].value:
        notes.append(Note("warning", "no_graph", f"no CUDA graph: {decisions['graph'].reason}"))
    if not experiment.training.deterministic and str(decisions["device"].value).startswith("cuda"):
        text = "deterministic is off: cuDNN picks kernels by time, and the run is not exact"
        notes.append(Note("warning", "not_exact", text))
    return notes


def split_sizes(splits: Splits) -> dict[str, int]:
    """How many examples each split has."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {name: len(part) for name, part in parts.items() if part is not None}
