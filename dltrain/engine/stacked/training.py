"""The loop of several trainings that share their batches, as one program. It yields what each of them has to say.

    a step:    batch -> augment -> stacked weights -> forward and backward of all (network.py)
               -> for each: its gradient, cut to its norm -> its optimizer -> what follows its weights
    an epoch:  its steps -> all on the validation split (measuring.py) -> for each, its own end of an epoch

Whatever is a training's own (optimizer, rates, averages, history, state) stays in its `Trainer`, and is done there:
stacked is what all compute alike. Imports torch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dltrain.data.types import Batch
from dltrain.engine.precision import Unscaled
from dltrain.engine.seeding import generators
from dltrain.engine.stacked.checking import draws_alike
from dltrain.engine.stacked.losses import StackedLosses
from dltrain.engine.stacked.measuring import measure, measured_together
from dltrain.engine.stacked.meter import StackedMeter
from dltrain.engine.stacked.network import NotStackable, StackedNetwork
from dltrain.engine.trainer import Trainer
from dltrain.engine.updates import Descent, PlainUpdate
from dltrain.errors import Note
from dltrain.runs.reports import EpochReport, NonFiniteError, Progress
from dltrain.tasks.impl.meters import wide_type

Event = Progress | EpochReport | NonFiniteError | None
"""What a training has to say: an end by NonFiniteError, and nothing when it has ended before."""
CHECKED = 8
"""Examples with which a stack is tried before it trains."""


class StackedTraining:
    """Trains K trainers together, from where they are, as `build_stacked` makes them.

    Between two events each is what it would be alone, up to rounding: its `state_dict` is whole, and it can go on
    alone, or in another stack. One that has ended is not touched any more.
    """

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        """Raises NotStackable when they cannot be trained together."""
        self.trainers = list(trainers)
        self._live = [member for member, trainer in enumerate(trainers) if not trainer.finished]
        self._descents = [_descent(trainer) for trainer in trainers]
        _require_alike(trainers, [trainers[member] for member in self._live])
        self.network = StackedNetwork([trainer.parts.model for trainer in trainers])
        self._meter = StackedMeter([trainer.metrics for trainer in trainers])
        self._losses = StackedLosses([trainer.parts.task for trainer in trainers])
        limits = [math.inf if descent.clip_norm is None else descent.clip_norm for descent in self._descents]
        device = trainers[0].parts.device
        self._limits, self._cuts = torch.tensor(limits, dtype=wide_type(device), device=device), min(limits) < math.inf
        self._uncut = self._limits.isinf()
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
        self.notes: list[Note] = []
        """What there is to say of this way of training."""
        if self._live:
            self._check()

    def run(
        self, watch: Callable[[Iterator[Batch]], Iterator[Batch]] = iter, progress_seconds: float = math.inf
    ) -> Iterator[list[Event]]:
        """Train all to their ends, yielding a list with one entry per training at the end of each epoch.

        watch: the batches pass through it; each request for one is the border between two steps. progress_seconds:
        after so many within an epoch, a list of Progress.
        """
        first = self.trainers[0]
        batches = watch(first.parts.train.batches(self._first.step)) if self._live else iter(())
        for member in self._live:
            self.trainers[member].parts.model.train()
        started = time.perf_counter()
        try:
            while self._live:
                asked = time.perf_counter()
                batch = next(batches)
                got = time.perf_counter()
                self._waited += got - asked
                self._train_step(batch, step := self._first.step + self._steps)
                for member in self._live:
                    trainer = self.trainers[member]
                    trainer.first_step = trainer.first_step or time.perf_counter() - got
                self._steps += 1
                ends = first.settings.ends_epoch(step + 1)
                if not ends and time.perf_counter() - started < progress_seconds:
                    continue
                if first.parts.device.type == "cuda":
                    torch.cuda.synchronize(first.parts.device)
                self._seconds += time.perf_counter() - started
                self._settle()
                yield self._finish_epoch() if ends else self._progress()
                self._live = [member for member in self._live if not self.trainers[member].finished]
                started = time.perf_counter()
        finally:
            self._settle()

    def stop(self, member: int) -> None:
        """End one of the trainings, between two events."""
        self._live = [other for other in self._live if other != member]

    def close(self) -> None:
        """Free the loaders' processes."""
        self.trainers[0].close()

    @property
    def _first(self) -> Trainer:
        """A training that goes on: what all have in common is asked of it."""
        return self.trainers[self._live[0]]

    def _train_step(self, batch: Batch, step: int) -> None:
        first = self._first
        parts, ends = first.parts, first.settings.ends_epoch(step + 1)
        parts.seeds.layers(step)
        inputs, targets = parts.pipeline.train(batch, step)
        live = [(member, self.trainers[member]) for member in self._live]
        with ExitStack() as learning:
            for _, trainer in live:
                learning.enter_context(trainer.learning(step))
            self._add_losses(inputs, inputs if parts.task.learns_inputs else targets)
            for _, trainer in live:
                trainer.parts.learning.drop_gradients()
                trainer.parts.gradients.add_penalties()
                if ends and trainer.parts.layers is not None:
                    trainer.parts.layers.measure()
            norms = self._cut() if ends or self._cuts else None
            drawn = [(generator, generator.get_state()) for generator in generators(parts.device)]
            for member, trainer in live:
                for generator, state in drawn:  # an optimizer that draws, draws what it would alone
                    generator.set_state(state)
                self._descents[member].descend()
                trainer.after_update(step)
                if norms is not None:
                    trainer.gradient_norm = norms[member]
        self.network.forget_gradients()

    def _add_losses(self, inputs: Tensor, targets: Tensor) -> None:
        """The gradients of the mean losses of a batch, to the networks that go on. See Gradients.add_loss."""
        parts = self._first.parts
        views, accumulate, network = parts.task.views, parts.gradients.accumulate, self.network
        scales = self._losses.scales(targets)
        network.gather()
        for x, y in zip(inputs.chunk(accumulate), targets.chunk(accumulate), strict=True):
            with parts.autocast():
                outputs = network.forward(x, self._live[0])
            logits, losses, totals = self._losses.of(outputs, y, scales)
            torch.autograd.backward(totals, torch.full_like(totals, 1 / (totals.shape[1] * accumulate)))
            self._meter.update(losses[:, ::views], logits[:, ::views], y[::views])
        network.give_buffers(self._live)
        network.give_gradients(self._live)

    @torch.no_grad()
    def _cut(self) -> Tensor:
        """Cut each network's gradient to its largest norm, as clip_grad_norm_ does. Returns the norms before (K,)."""
        frozen = self._first.parts.learning.frozen
        gradients = self.network.gradients(frozen)
        each = [torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients]
        norms: Tensor = torch.linalg.vector_norm(torch.stack(each), dim=0)
        if self._cuts:
            limits = self._limits.to(norms.dtype)
            shares = torch.where(self._uncut, 1.0, (limits / (norms + 1e-6)).clamp(max=1.0))
            torch._foreach_mul_(gradients, [shares.to(g.dtype).view(-1, *[1] * (g.ndim - 1)) for g in gradients])
        return norms

    def _settle(self) -> None:
        """Let each training know what has been done for it."""
        self._meter.give(self._live)
        for member in self._live:
            self.trainers[member].advance(self._steps, self._seconds, self._waited)
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0

    def _finish_epoch(self) -> list[Event]:
        started = time.perf_counter()
        together = [member for member in self._live if measured_together(self.trainers[member])]
        reports = measure(self.network, self.trainers, together) if together else {}
        seconds = time.perf_counter() - started
        return self._each(lambda member: self.trainers[member].finish_epoch(reports.get(member), seconds))

    def _progress(self) -> list[Event]:
        return self._each(lambda member: self.trainers[member].progress())

    def _each(self, say: Callable[[int], Event]) -> list[Event]:
        """What each training has to say; one that has left the numbers ends."""
        events: list[Event] = [None] * len(self.trainers)
        for member in list(self._live):
            try:
                events[member] = say(member)
            except NonFiniteError as error:
                events[member] = error
                self.stop(member)
        return events

    def _check(self) -> None:
        """Raise NotStackable when torch computes something else for the networks together than for each alone."""
        first = self._first
        parts = first.parts
        batches = parts.train.batches(first.step, aside=True)
        try:
            inputs, _ = parts.pipeline.train(next(batches), first.step)
        finally:
            batches.close()
        example = inputs[: CHECKED * parts.task.views]
        if len(self.trainers) > 1 and not draws_alike(self.network.networks, example, parts.autocast):
            message = "layers that draw, such as dropout, draw other numbers here than in a training alone"
            self.notes.append(Note("info", "stacked_draws", message))


def _descent(trainer: Trainer) -> Descent:
    """How the weights follow a gradient that is found elsewhere. Raises NotStackable where they do not."""
    update = trainer.parts.update
    if not isinstance(update, PlainUpdate):
        raise NotStackable("an optimizer finds the gradients itself")
    if not isinstance(trainer.parts.scaler, Unscaled):
        raise NotStackable("float16 scales each gradient by a factor of its own")
    return update.descent


def _require_alike(trainers: Sequence[Trainer], live: Sequence[Trainer]) -> None:
    """Raise NotStackable for trainings that cannot share their steps."""
    first, decided = trainers[0], [_decided(trainer) for trainer in trainers]
    if any(trainer.parts.train is not first.parts.train for trainer in trainers):
        raise NotStackable("they do not share their batches")
    if len({trainer.step for trainer in live}) > 1:
        raise NotStackable("they are at different steps")
    settings = [replace(t.settings, early_stopping=None, watched=None, log_every=None) for t in trainers]
    if any(other != settings[0] for other in settings):
        raise NotStackable("their loops differ in length or in rhythm")
    if first.parts.group.size > 1:
        raise NotStackable("several devices train them")
    if decided[0]["compile"]:
        raise NotStackable("their network is compiled")
    if other := next((name for own in decided for name in own if own[name] != decided[0].get(name)), None):
        raise NotStackable(f"they differ in what was decided for them: {other}")


def _decided(trainer: Trainer) -> dict[str, Any]:
    decisions = trainer.about["decisions"]
    return {name: decision["value"] for name, decision in decisions.items() if name != "clip_norm"}
