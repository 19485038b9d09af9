"""The plan of a training: what it will do, and what it will cost, without training.

Imports torch: import it where a plan is made.
"""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.config import ConfigError
from dltrain.data.loading.balance import told
from dltrain.data.targets import TargetSpec, as_tensor, target_from
from dltrain.data.types import InputSpec, Source, Splits
from dltrain.engine.decisions import Decision, Decisions, count_multiply_adds, dtype_of, pick_device
from dltrain.engine.networks import make_network, timetable_of, transferred, without_pretrained
from dltrain.engine.precision import halve_for
from dltrain.engine.progressive import progressive_size
from dltrain.engine.resolve import Resolved, ResolvedTraining, at, decide_all, resolve, resolve_training
from dltrain.engine.sections import Curve, build_sections
from dltrain.engine.statistics import require_statistics
from dltrain.engine.summary import downgrades, split_sizes, waiting
from dltrain.engine.trainer import Trainer
from dltrain.engine.transfer import Transfer
from dltrain.experiment.experiment import Experiment
from dltrain.optim.impl.groups import parameter_groups
from dltrain.planning import warnings as traps
from dltrain.planning.network import Measured, forward_bytes, measure

SAMPLES = 200
"""Steps that a curve is sampled at."""
ASSUMED = 10
"""Epochs of a training whose length is a time."""
LARGEST_TRIAL = 5e7
"""Parameters up to which an optimizer that looks at numbers is tried out on real tensors."""


@dataclass(frozen=True)
class _Training:
    """What both ways to a plan find out. sources: of each split that is read in training, with its layout."""

    experiment: Experiment
    model: nn.Module
    measured: Measured
    shape: InputSpec
    target: TargetSpec
    examples: dict[str, int]
    sources: list[tuple[Source, Any]]
    decisions: Decisions
    groups: list[dict[str, Any]]
    steps_per_epoch: int
    total_steps: int
    learning_rate: Curve
    momentum: Curve | None
    resizing: object | None
    """What makes images smaller; its text says when."""
    initialized: Transfer | None
    """What `initialize_from` gives, tensor by tensor."""


def plan(experiment: Experiment, device: str = "auto", depth: int | None = None) -> dict[str, Any]:
    """The plan of an experiment as plain values. The network has no weights: that of a large one is instant too.

    depth: levels of modules that `layers` goes down; by default as many as fit into a table.
    Raises ConfigError when the data is not there or does not fit, and ValueError for a device that is not there.
    """
    target = pick_device(device)
    splits = _load(experiment)
    training = resolve_training(resolve(experiment, splits, rough=True), splits, target)
    timed = experiment.training.time is not None
    if timed:  # it cannot be known without training
        training = training.lasting(ASSUMED * training.steps_per_epoch)
    written = _written(_resolved(training), depth)
    if timed:
        epochs = f"here it is taken for {ASSUMED} epochs"
        written["warnings"].append(f"`training.time`: `fit` times a few steps to decide on their number; {epochs}")
    written["warnings"] += [note.text for note in splits.remarks if note.level == "warning"]
    return written


def _resolved(training: ResolvedTraining) -> _Training:
    """What a plan says of a training that is not built. Raises ConfigError for what `fit` would refuse."""
    experiment, resolved, splits = training.experiment, training.resolved, training.splits
    model, measured = _network(resolved)
    decisions = decide_all(training, model, _multiply_adds(experiment, model, measured))
    if (resizing := progressive_size(experiment, model, resolved.shape, training.total_steps)) is not None:
        require_statistics(experiment, model, resizing.smallest)
    sections = build_sections(training, model, torch.device("cpu"))
    precision = decisions["precision"].value
    halve_for(experiment, model, sections.groups, precision)
    if (dtype := dtype_of(precision)) != torch.float32:
        measured = measure(model, resolved.shape, experiment.training.micro_batch, dtype)
    sources = [each for name, each in resolved.examples(splits).items() if name != "test"]
    return _Training(
        experiment, model, measured, resolved.shape, splits.target, split_sizes(splits), sources, decisions,
        sections.groups, training.steps_per_epoch, training.total_steps, sections.learning_rate, sections.momentum,
        resizing, transferred(resolved, model),
    )  # fmt: skip


def plan_of(experiment: Experiment, trainer: Trainer) -> dict[str, Any]:
    """The plan of a training that is built: the same values."""
    parts, about = trainer.parts, trainer.about
    decisions = {name: Decision(**decision) for name, decision in about["decisions"].items()}
    loaders = [loader for loader in (parts.train, parts.validation) if loader is not None]
    measured = measure(
        parts.model, parts.shape, experiment.training.micro_batch, dtype_of(decisions["precision"].value)
    )
    settings = trainer.settings
    groups = parameter_groups(parts.model, experiment.optimizer, timetable_of(experiment, settings.steps_per_epoch))
    training = _Training(
        experiment, parts.model, measured, parts.shape, target_from(about["target"]), trainer.examples,
        [(loader.source, loader.layout) for loader in loaders], decisions, groups, settings.steps_per_epoch,
        settings.total_steps, parts.learning_rate, parts.momentum, parts.pipeline.resize,
        trainer.initialized,
    )  # fmt: skip
    return _written(training, None)


def _load(experiment: Experiment) -> Splits:
    """The data, without downloading any."""
    data = experiment.data
    if downloads := getattr(data, "download", False):
        data = data.model_copy(update={"download": False})
    try:
        with at(experiment, "data"):
            return data.load(targets=experiment.resolved_task.targets)
    except ConfigError as error:
        way_out = "to plan without it: dltrain plan EXPERIMENT data=synthetic data.examples=50000 data.shape=[3,32,32]"
        *others, last = error.diagnostics
        notes = [note for note in last.notes if not (downloads and note.startswith("set `download: true`"))]
        notes += ["`dltrain fit` would download it"] if downloads else []
        raise ConfigError([*others, replace(last, notes=(*notes, way_out))], error.subject) from None


def _network(resolved: Resolved) -> tuple[nn.Module, Measured]:
    """The network, on the meta device where it can be built and run there, and what an image costs."""
    section, batch = without_pretrained(resolved.experiment.model), resolved.experiment.training.micro_batch
    try:
        with torch.device("meta"):
            model = make_network(resolved, section)
        return model, measure(model, resolved.shape, batch)
    except Exception:  # a mistake of the experiment's shows below, where numbers are computed
        model = make_network(resolved, section)
        return model, measure(model, resolved.shape, batch)


def _multiply_adds(experiment: Experiment, model: nn.Module, measured: Measured) -> int:
    """Of an image in evaluation, which needs no auxiliary heads: what decisions go by."""
    if not experiment.model.auxiliary_weight or not all(p.is_meta for p in model.parameters()):
        return measured.multiply_adds
    with torch.device("meta"):
        return count_multiply_adds(model, measured.shape)


def _written(training: _Training, depth: int | None) -> dict[str, Any]:
    experiment, section = training.experiment, training.experiment.training
    measured, parameters = training.measured, list(training.model.parameters())
    trained = [parameter for group in training.groups for parameter in group["params"]]
    with at(experiment, "optimizer"):
        state = optimizer_bytes(experiment, training.groups)
    examples = sum(source.bytes_on(layout) for source, layout in training.sources)
    network = _bytes(parameters), _bytes(training.model.buffers())
    memory = {
        "parameters": network[0], "buffers": network[1], "gradients": _bytes(trained), "optimizer": state,
        "average": sum(network) if section.average is not None or experiment.optimizer.lookahead is not None else 0,
        "lookahead": _bytes(trained) if experiment.optimizer.lookahead is not None else 0,
        "sam": _bytes(trained) + network[1] if experiment.optimizer.sam is not None else 0,
        "estimate": experiment.gradient.copies * _bytes(trained),
        "activations": _activation_bytes(training),
        "data": examples if training.decisions["loader"].value == "resident" else 0,
    }  # fmt: skip
    device = str(training.decisions["device"].value)
    facts = traps.Facts(
        experiment, training.model, measured, training.groups, device, training.steps_per_epoch, training.total_steps,
        training.learning_rate, sum(memory.values()) - memory["data"],
    )  # fmt: skip
    notes = [note.text for note in downgrades(experiment, training.decisions, training.examples)]
    loaded = training.initialized.notes() if training.initialized is not None else []
    notes += [note.text for note in loaded if note.level == "warning"]
    adaptation = getattr(training.model, "adaptation", None)
    warmup = experiment.schedule.warmup
    curve = partial(_samples, total_steps=training.total_steps)
    feedback = experiment.schedule.build_feedback(experiment.optimizer.lr, experiment.resolved_task, True)
    return {
        "experiment": experiment.name,
        "data": experiment.data.name,
        "examples": training.examples,
        "task": experiment.resolved_task.name,
        "loss": experiment.loss.name,
        "targets": training.target.counted,
        "balance": _balance(training),
        "example": training.shape.one,
        "shape": list(training.shape.example(1, "meta").shape[1:]),
        "progressive_size": str(training.resizing) if training.resizing is not None else None,
        "model": experiment.model.name,
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trainable_parameters": sum(parameter.numel() for parameter in trained),
        "multiply_adds": measured.multiply_adds,
        "layers": [asdict(layer) for layer in measured.layers(depth)],
        "adaptation": adaptation.to_dict() if adaptation is not None else {},
        "batch_size": section.batch,
        "accumulate": section.accumulate,
        "epochs": -(-training.total_steps // training.steps_per_epoch),
        "steps_per_epoch": training.steps_per_epoch,
        "steps": training.total_steps,
        "memory_bytes": {**memory, "total": sum(memory.values())},
        "gradient": experiment.gradient.name,
        "frozen": waiting(experiment),
        "initialized": training.initialized.to_dict() if training.initialized is not None else None,
        "optimizer": experiment.optimizer.name,
        "groups": [
            {
                "tensors": len(group["params"]), "parameters": sum(p.numel() for p in group["params"]),
                "weight_decay": group["weight_decay"], "lr": experiment.optimizer.lr * group.get("lr_scale", 1.0),
            }
            for group in training.groups
        ],
        "schedule": experiment.schedule.name,
        "warmup_steps": warmup.length(training.steps_per_epoch) if warmup is not None else 0,
        "follows_results": feedback is not None,
        "learning_rate": curve(training.learning_rate),
        "momentum": curve(training.momentum) if training.momentum is not None else None,
        "decisions": {name: asdict(decision) for name, decision in training.decisions.items()},
        "warnings": [*notes, *(text for text in traps.warnings(facts) if text not in notes)],
    }  # fmt: skip


def _balance(training: _Training) -> str | None:
    data, source = training.experiment.data, training.sources[0][0]
    return told(as_tensor(source.targets), data.balance_power) if data.balance is not None else None


def _activation_bytes(training: _Training) -> int:
    """Of the tensors between layers: those kept for the backward pass, or, without one, those that there are at once,
    with their derivatives in forward mode."""
    gradient = training.experiment.gradient
    if gradient.backward:
        return training.measured.activation_bytes
    dtype = dtype_of(training.decisions["precision"].value)
    held = forward_bytes(training.model, training.shape, training.experiment.training.micro_batch, dtype)
    return held * 2 if gradient.differentiates else held


def _samples(curve: Curve, total_steps: int) -> list[list[float]]:
    """[step, value] at SAMPLES steps at most, the first and the last among them."""
    count = min(total_steps, SAMPLES)
    steps = [round(i * (total_steps - 1) / max(count - 1, 1)) for i in range(count)]
    return [[step, curve(step)] for step in steps]


def optimizer_bytes(experiment: Experiment, groups: list[dict[str, Any]]) -> int:
    """Bytes that the optimizer keeps after a step, found by one: without numbers, or with some for an optimizer that
    looks at them. Two tensors a parameter, as Adam has, are assumed where neither works."""
    count = sum(parameter.numel() for group in groups for parameter in group["params"])
    for device in ("meta", "cpu") if count <= LARGEST_TRIAL else ("meta",):
        try:
            return _state_bytes(experiment, groups, torch.device(device))
        except ConfigError:
            raise
        except Exception:  # libraries raise whatever they meet first
            continue
    return 2 * _bytes(parameter for group in groups for parameter in group["params"])


def _state_bytes(experiment: Experiment, groups: list[dict[str, Any]], device: torch.device) -> int:
    copies = []
    for group in groups:
        parameters = [nn.Parameter(torch.ones_like(p, device=device)) for p in group["params"]]
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        copies.append({**group, "params": parameters})
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")
        optimizer = experiment.optimizer.build(copies, device)
        optimizer.step()
    return _bytes(_tensors(list(optimizer.state.values())))


def _tensors(value: Any) -> Iterable[Tensor]:
    """The tensors anywhere in nested lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
