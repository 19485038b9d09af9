"""How a batch changes the weights: a strategy, made of gradients and of the optimizer's step. Imports torch.

    plain      gradients of the loss and the penalties -> descent
    SAM        gradients -> up to where the loss is sharpest -> gradients there -> back -> penalties -> descent
    closure    the optimizer asks for loss and gradients as often as it likes, and changes the weights itself
    estimated  passes forward in random directions -> an estimate of the gradient -> penalties -> descent
    descent:   unscale -> cut to a norm -> optimizer

A new strategy is a class with the methods of `Update`; it is chosen where the trainer's parts are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dltrain.engine.after_step import Stateful, Stateless
from dltrain.engine.distributed import Group
from dltrain.engine.layer_gradients import LayerGradients
from dltrain.engine.precision import Scaler
from dltrain.engine.seeding import Seeds
from dltrain.engine.shortcuts import MeanGradient, forget_gradients
from dltrain.engine.watching.watcher import Watcher
from dltrain.optim.impl.gradients import Estimator
from dltrain.optim.impl.learning import Learning
from dltrain.optim.impl.penalties import Penalties
from dltrain.optim.impl.wrappers import SharpnessAware
from dltrain.tasks.impl.base import BuiltTask
from dltrain.tasks.impl.meters import Meter


@dataclass(frozen=True)
class StepInput:
    """What a step is given."""

    inputs: Tensor
    """(B, C, H, W) float32."""
    targets: Tensor
    step: int
    ends_epoch: bool
    """Whether the norm of the gradient is reported after this step."""
    metrics: Meter
    """Takes in what the network puts out for the batch, once."""
    watched: bool = False
    """Whether the layers are looked at in this step."""


class Update(Stateful, Protocol):
    """How the batch of a step changes the weights."""

    def run(self, given: StepInput) -> Tensor | None:
        """Do the step. Returns the norm of the gradient as it was before it was cut, where that is known."""


@dataclass
class Gradients:
    """Adds the gradients of a step to the parameters'."""

    parameters: list[nn.Parameter]
    """Those that are trained."""
    forward: Callable[[Tensor], Any]
    """The network; where several processes train together, its backward pass averages gradients."""
    task: BuiltTask
    learning: Learning
    penalties: Penalties
    scaler: Scaler
    group: Group
    accumulate: int
    """Parts of a batch whose gradients are added up."""
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    no_sync: Callable[[], AbstractContextManager[Any]] = nullcontext
    """The context in which a backward pass leaves gradients as they are, to be averaged with those of the next."""
    layers: LayerGradients | None = None
    """What keeps the norms of each layer's gradient, where they are reported."""
    watcher: Watcher | None = None
    """What looks at the layers in some steps."""

    def __post_init__(self) -> None:
        self._mean = MeanGradient(self.accumulate)

    def add_loss(self, given: StepInput, *, measure: bool = True) -> Tensor:
        """Of the mean loss of a batch. Returns what each example contributes to the loss (B,).

        measure: whether this pass is the one that the metrics take in.
        """
        summands = []
        for total in self.summands(given, measure=measure):
            torch.autograd.backward(total, self.scaler.scale(self._mean.of(total)))
            summands.append(total.detach())
        self.learning.drop_gradients()
        return summands[0] if self.accumulate == 1 else torch.cat(summands)

    def summands(
        self, given: StepInput, *, measure: bool = True, forward: Callable[[Tensor], Any] | None = None
    ) -> Iterator[Tensor]:
        """A forward pass: for each part of the batch, what each of its examples contributes to the loss (b,).

        forward: the network where it is called in another way than usual. The next part follows when the caller has
        done with one, such as its backward pass.
        """
        task, inputs, targets, accumulate = self.task, given.inputs, given.targets, self.accumulate
        forward, scale = forward or self.forward, task.scale(targets, self.group.add)
        whole = [(inputs, targets)]
        chunks = whole if accumulate == 1 else zip(inputs.chunk(accumulate), targets.chunk(accumulate), strict=True)
        for number, (x, y) in enumerate(chunks, 1):
            with nullcontext() if number == accumulate else self.no_sync():
                with self.autocast():
                    outputs = forward(x)
                logits, losses, total = task.losses(outputs, y, scale)
                yield total
            if measure and task.views > 1:  # of several views of an example, the example itself
                losses, logits, y = (values[:: task.views] for values in (losses, logits, y))
            if measure:
                given.metrics.update(losses, logits, y)

    def add_penalties(self) -> Tensor | float:
        """Of the penalties on weights. Returns their sum."""
        penalty = self.penalties.loss(self.learning.frozen)
        if penalty is None:
            return 0.0
        torch.autograd.backward(self.scaler.scale(penalty))
        return penalty.detach()

    def norm(self) -> Tensor:
        """Of all gradients together."""
        return nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])

    def measure_layers(self, given: StepInput) -> None:
        """Keep what is reported of each layer's gradient, after a step that reports it."""
        if self.layers is not None and given.ends_epoch:
            self.layers.measure()
        if self.watcher is not None and given.watched:
            self.watcher.gradients()

    def forget(self) -> None:
        """Begin anew."""
        forget_gradients(self.parameters)


@dataclass
class Descent:
    """The optimizer's step along the gradients that are there, which then are forgotten."""

    gradients: Gradients
    optimizer: torch.optim.Optimizer
    seeds: Seeds
    clip_norm: float | None
    """The norm to which longer gradients are cut."""

    def run(self, given: StepInput) -> Tensor | None:
        """See Update."""
        gradients, scaler, norm = self.gradients, self.gradients.scaler, None
        self.seeds.optimizer(given.step)
        if self.clip_norm is not None or given.ends_epoch or given.watched:  # by a power of 2, which rounds nothing
            scaler.unscale_(self.optimizer)
        gradients.measure_layers(given)
        if self.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(gradients.parameters, self.clip_norm).detach()
        elif given.ends_epoch:
            norm = gradients.norm()
        self.descend()
        return norm

    def descend(self) -> None:
        """The optimizer's step along the gradients as they are now."""
        scaler = self.gradients.scaler
        scaler.step(self.optimizer)
        scaler.update()
        self.gradients.forget()


@dataclass
class PlainUpdate(Stateless):
    """A step along the gradient of the loss, as most optimizers take it."""

    gradients: Gradients
    descent: Descent

    def run(self, given: StepInput) -> Tensor | None:
        """See Update."""
        self.gradients.add_loss(given)
        self.gradients.add_penalties()
        return self.descent.run(given)


@dataclass
class SharpnessAwareUpdate(Stateless):
    """A step along the gradient that the loss has where it is sharpest nearby: two passes of the batch."""

    gradients: Gradients
    descent: Descent
    seeds: Seeds
    sharpness: SharpnessAware

    def run(self, given: StepInput) -> Tensor | None:
        """See Update."""
        self.gradients.add_loss(given)
        self.sharpness.ascend()
        self.seeds.layers(given.step)  # the second pass drops the same units
        self.gradients.add_loss(given, measure=False)
        self.sharpness.descend()
        self.gradients.add_penalties()
        return self.descent.run(given)


@dataclass
class ClosureUpdate(Stateless):
    """A step of an optimizer that evaluates the batch as often as it likes; the first time counts for metrics."""

    gradients: Gradients
    optimizer: torch.optim.Optimizer
    seeds: Seeds

    def run(self, given: StepInput) -> Tensor | None:
        """See Update."""
        gradients, group, first = self.gradients, self.gradients.group, True

        def loss() -> float:
            nonlocal first
            gradients.forget()
            self.seeds.layers(given.step)
            loss = gradients.add_loss(given, measure=first).mean()
            first = False
            group.add([loss])
            return float(loss / group.size + gradients.add_penalties())

        self.optimizer.step(loss)
        norm = gradients.norm() if given.ends_epoch else None
        gradients.measure_layers(given)
        gradients.forget()
        return norm


@dataclass
class EstimatedUpdate(Stateless):
    """A step along an estimate of the gradient of the loss, from forward passes of the batch; the first one counts.

    All passes of a step draw the same in layers, and begin with the same buffers. The gradient of penalties on weights
    is their own. Of several processes each takes the same directions, and they tell each other one number for each.
    """

    gradients: Gradients
    descent: Descent
    seeds: Seeds
    model: nn.Module
    estimator: Estimator

    def run(self, given: StepInput) -> Tensor | None:
        """See Update."""
        gradients, group = self.gradients, self.gradients.group
        buffers = list(self.model.buffers())
        group.copy(buffers)
        before, after = [buffer.clone() for buffer in buffers], buffers

        def put_back(values: list[Tensor]) -> None:
            for buffer, value in zip(buffers, values, strict=True):
                buffer.detach().copy_(value)

        def evaluate(weights: Mapping[str, Tensor] | None = None) -> Tensor:
            nonlocal after
            self.seeds.layers(given.step)
            forward = None if weights is None else partial(functional_call, self.model, dict(weights))
            first = after is buffers
            put_back(before)
            summands = torch.cat(list(gradients.summands(given, measure=first, forward=forward)))
            if first:
                after = [buffer.clone() for buffer in buffers]
            return summands

        def mean(slope: Tensor) -> Tensor:
            group.add([slope])
            return slope / group.size

        frozen = gradients.learning.frozen
        weights = {n: p for n, p in self.model.named_parameters() if p.requires_grad and p not in frozen}
        seeds = [self.seeds.direction(given.step, number) for number in range(self.estimator.directions)]
        for name, estimate in self.estimator.gradients(weights, evaluate, seeds, mean).items():
            weights[name].grad = estimate
        put_back(after)
        gradients.add_penalties()
        return self.descent.run(given)
