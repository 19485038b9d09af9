"""The network of a training: made, placed on its device, and given the weights that it starts from. Imports torch."""

from __future__ import annotations

import copy
import fnmatch
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dltrain.config import ConfigError
from dltrain.data.random import derive_seed
from dltrain.data.types import InputSpec
from dltrain.engine.decisions import count_multiply_adds
from dltrain.engine.resolve import Resolved, at
from dltrain.engine.seeding import seed_layers
from dltrain.engine.statistics import require_statistics
from dltrain.engine.transfer import Transfer, initialize
from dltrain.experiment.experiment import Experiment
from dltrain.models.base import Model
from dltrain.optim.impl.groups import no_match
from dltrain.optim.impl.learning import Timetable, freeze


@dataclass(frozen=True)
class Network:
    """A network, and what it costs."""

    model: nn.Module
    multiply_adds: int
    """Of an image."""


def build_network(resolved: Resolved, *, fresh: bool, devices: int = 1) -> Network:
    """The network on the CPU, where its weights are the same for every device.

    fresh: whether no checkpoint's weights will replace them. devices: how many share a batch.
    Raises ConfigError for a network that cannot be trained on what one of them sees at once.
    """
    section = resolved.experiment.model if fresh else without_pretrained(resolved.experiment.model)
    seed_layers(derive_seed(resolved.experiment.seed, "weights"), torch.device("cpu"))
    model = make_network(resolved, section, devices)
    return Network(model, count_multiply_adds(model, resolved.shape))


def make_network(resolved: Resolved, section: Model, devices: int = 1) -> nn.Module:
    """What `section` makes for the data, its frozen groups frozen. See build_network."""
    with at(resolved.experiment, "model"):
        model = section.make(resolved.shape, resolved.outputs)
    freeze_parameters(resolved.experiment, model)
    require_statistics(resolved.experiment, model, resolved.shape, devices)
    return model


def freeze_parameters(experiment: Experiment, model: nn.Module) -> None:
    """Take what never learns out of the training. Raises ConfigError where `freeze` matches nothing, or everything."""
    names = [name for name, _ in model.named_parameters()]
    void = [(i, p) for i, p in enumerate(experiment.freeze) if not any(fnmatch.fnmatchcase(name, p) for name in names)]
    if void:
        problems = [
            replace(no_match(pattern, "freeze", names, "freeze"), where=experiment.span("freeze", index))
            for index, pattern in void
        ]
        raise experiment.located(ConfigError(problems), "freeze")
    freeze(model, timetable_of(experiment))
    if experiment.freeze and not any(parameter.requires_grad for parameter in model.parameters()):
        raise experiment.error("freeze", "nothing is left to learn: all parameters of the model are frozen")


def timetable_of(experiment: Experiment, steps_per_epoch: int = 1) -> Timetable:
    """When parameters learn. steps_per_epoch: any where it only matters whether they ever do."""
    moment = experiment.unfreeze_at
    unfreeze = math.inf if moment is None else moment.in_epochs(steps_per_epoch)
    return Timetable(experiment.optimizer.groups, experiment.freeze, unfreeze)


def place(model: nn.Module, device: torch.device, *, channels_last: bool) -> None:
    """Move a network to its device, in the layout in which it computes."""
    model.to(device)
    if channels_last:
        model.to(memory_format=torch.channels_last)


def without_pretrained(model: Model) -> Model:
    """The same network with random weights: a checkpoint's will replace them, nothing is downloaded."""
    return model.model_copy(update={"pretrained": False}) if getattr(model, "pretrained", False) else model


def start_weights(resolved: Resolved, model: nn.Module, images: Callable[[int], Iterator[Tensor]]) -> Transfer | None:
    """Set what the weights start from: `model.initialization`, what the network takes from training images, and
    `initialize_from`. Returns what that gave.

    images: gives so many of the first training images, in whole batches (B, C, H, W).
    """
    experiment, section = resolved.experiment, resolved.experiment.model
    with at(experiment, "model.initialization"):
        if (initialization := section.initialization) is not None:
            first = next(images(1)) if initialization.needs_images else None
            initialization.apply(model, experiment.seed, first)
        section.start(model, images)
    return transferred(resolved, model)


def transferred(resolved: Resolved, model: nn.Module) -> Transfer | None:
    """Give `model` the weights that `initialize_from` names. See initialize."""
    bare, outputs, names = without_pretrained(resolved.experiment.model), resolved.outputs, resolved.target.names
    return initialize(
        resolved.experiment, model, list(names), lambda count: bare.make(resolved.shape, replace(outputs, count=count))
    )


def has_idle_weights(model: nn.Module, shape: InputSpec) -> bool:
    """Whether a training step gives some weights no gradient; yes where that cannot be seen on the meta device."""
    copied = copy.deepcopy(model).to("meta").train()
    try:
        outputs = copied(shape.example(2, "meta"))
        several = outputs if isinstance(outputs, tuple) else (outputs,)
        tensors = [output for output in several if isinstance(output, Tensor) and output.requires_grad]
        torch.autograd.backward([tensor.sum() for tensor in tensors])
    except (NotImplementedError, RuntimeError):
        return True
    return any(weight.requires_grad and weight.grad is None for weight in copied.parameters())
