"""The training loop. It receives built objects and yields plain reports; it writes no file and prints nothing.

    a step:    batch -> augment(batch, step) -> what learns now, at lr(step) -> update of the weights (updates.py)
               -> what follows them or bounds them (after_step.py)
               some steps are watched: looks at the layers before and after all that (watching/)
    an epoch:  its steps -> evaluate on the validation split -> EpochReport

Order, augmentation, dropout and learning rate are functions of (seed, step), so the state of a training
is its tensors and its step, at any step. Nothing inside a step waits for the device: a non-finite loss is
looked for when progress is reported, and before any state leaves the trainer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from dltrain.data.loading.choosing import Loader
from dltrain.data.types import Batch
from dltrain.engine.measuring import evaluate, measure_statistics
from dltrain.engine.parts import LoopSettings, Parts
from dltrain.engine.transfer import Transfer
from dltrain.engine.updates import StepInput
from dltrain.errors import Note
from dltrain.runs.checkpoints import all_finite
from dltrain.runs.reports import (
    EpochReport,
    Look,
    NonFiniteError,
    Progress,
    Row,
    best_epoch,
    stops_early,
    tagged,
)
from dltrain.runs.restoring import require_state_of
from dltrain.runs.stored import ALWAYS_NAMED, WATCHED
from dltrain.tasks.guess import Guess
from dltrain.tasks.impl.meters import Meter, Report
from dltrain.tasks.metrics import THROUGHPUT

KERNELS = ("fused", "foreach", "capturable")
"""Options of torch's optimizers that say how they compute, on which device: no part of a training's state."""


class Trainer:
    """Trains one model. `run` is the loop; `state_dict` between two events continues it bit-exactly."""

    def __init__(
        self, parts: Parts, settings: LoopSettings, *, about: dict[str, Any] | None = None,
        summary: dict[str, str] | None = None, notes: Sequence[Note] = (), examples: dict[str, int] | None = None,
        guess: Guess | None = None, initialized: Transfer | None = None,
    ) -> None:  # fmt: skip
        self.parts, self.settings = parts, settings
        self.about = about or {}
        """Plain values that a checkpoint carries beside the weights: experiment, target, preprocessing, decisions."""
        self.summary, self.notes = summary or {}, list(notes)
        """What this training is, and what there is to say about it before it starts."""
        self.examples = examples or {}
        """How many each split of the data has."""
        self.guess = guess
        """What guessing reaches on the split that judges the training."""
        self.initialized = initialized
        """What `initialize_from` gave, tensor by tensor."""
        self.step = 0
        self.history: list[Row] = []
        self.metrics = parts.task.meter()
        self.gradient_norm = torch.zeros((), device=parts.device)
        self._parameters = [p for p in parts.model.parameters() if p.requires_grad]
        self._epoch_seconds = self._data_seconds = 0.0
        self.first_step = 0.0
        """Seconds that the host spent in the first step of this process: it compiles, and kernels are chosen."""
        self._factor = 1.0
        self._reported = 0
        """The step of the last event."""

    def lr(self, step: int) -> float:
        """The learning rate of a step of this epoch."""
        return self.parts.learning_rate(step) * self._factor

    def run(self, watch: Callable[[Iterator[Batch]], Iterator[Batch]] = iter) -> Iterator[Progress | EpochReport]:
        """Train from the current step to the end, yielding progress and a report per epoch.

        watch: the batches pass through it; each request for one is the border between two steps.
        """
        if self.finished:
            return
        batches = watch(self.parts.train.batches(self.step))
        self.parts.model.train()
        started = time.perf_counter()
        while not self.finished:
            asked = time.perf_counter()
            batch = next(batches)
            got = time.perf_counter()
            self._data_seconds += got - asked
            self._train_step(batch, self.step)
            self.first_step = self.first_step or time.perf_counter() - got
            self.step += 1
            ends = self.settings.ends_epoch(self.step)
            due = time.perf_counter() - started >= self.settings.progress_seconds
            if not ends and not self.parts.group.first_said(due):
                continue
            if self.parts.device.type == "cuda":
                torch.cuda.synchronize(self.parts.device)  # for an honest clock: what is yielded waits in any case
            self._epoch_seconds += time.perf_counter() - started
            yield self.finish_epoch() if ends else self.progress()
            started = time.perf_counter()

    def _train_step(self, batch: Batch, step: int) -> None:
        parts, settings = self.parts, self.settings
        parts.seeds.layers(step)
        inputs, targets = parts.pipeline.train(batch, step)
        targets = inputs if parts.task.learns_inputs else targets
        watcher = parts.watcher if parts.watcher is not None and parts.watcher.watches(step) else None
        given = StepInput(inputs, targets, step, settings.ends_epoch(step + 1), self.metrics, watcher is not None)
        with self.learning(step):
            if watcher is not None:
                watcher.before(step, inputs, parts.learning.frozen)
            norm = parts.update.run(given)
            self.after_update(step)
            if watcher is not None:
                watcher.after(step, self.lr(step))
        if norm is not None:
            self.gradient_norm = norm

    def learning(self, step: int) -> AbstractContextManager[None]:
        """The context of a step, in which that learns which is due, at the rates of this step."""
        parts = self.parts
        momentum = parts.momentum(step) if parts.momentum is not None else None
        return parts.learning.at(step / self.settings.steps_per_epoch, self.lr(step), momentum)

    def after_update(self, step: int) -> None:
        """What follows the change of the weights in a step."""
        for part in self.parts.after_step.values():
            part.after_step(step, self.parts.learning.frozen)

    def advance(self, steps: int, seconds: float, waited: float) -> None:
        """So many steps have been done from outside, in so many seconds, of which so many went by waiting for data."""
        self.step += steps
        self._epoch_seconds += seconds
        self._data_seconds += waited

    def finish_epoch(self, measured: Report | None = None, seconds: float = 0.0) -> EpochReport:
        """End the epoch whose last step is done.

        measured: what the validation split says, where that was found in so many seconds from outside; None: it is
        measured here. Raises NonFiniteError where the training has left the numbers.
        """
        self._require_finite()
        parts, settings = self.parts, self.settings
        epoch = math.ceil(self.step / settings.steps_per_epoch)
        metrics = self._metrics_of_all()
        trained, points = metrics.compute(), self._points(metrics)
        row: Row = {"epoch": epoch, "step": self.step, **tagged("train", trained)}
        started = time.perf_counter() - seconds
        if parts.average is not None and parts.average.needs_statistics(self.step, settings.steps_per_epoch):
            measure_statistics(parts.average.model, parts, settings, self.step)
        if parts.validation is not None and self.evaluates:
            report = measured if measured is not None else self.evaluate(parts.validation)
            parts.task.settle(report)
            row |= tagged("validation", report.compute())
        row["lr"] = self.lr(self.step - 1)
        row[THROUGHPUT] = metrics.examples / max(self._epoch_seconds, 1e-9)
        row["norm/gradient"] = float(self.gradient_norm)
        row["norm/weights"] = float(nn.utils.get_total_norm(self._parameters))
        row |= parts.layers.row() if parts.layers is not None else {}
        row["seconds/data"], row["seconds/compute"] = self._data_seconds, self._epoch_seconds - self._data_seconds
        row["seconds/evaluate"], row["seconds/checkpoint"] = time.perf_counter() - started, 0.0
        self.history.append(row)
        self._react()
        self.metrics.reset()
        self._epoch_seconds = self._data_seconds = 0.0
        is_best = best_epoch(self.history, settings.watched) == len(self.history) - 1
        return EpochReport(epoch, self.step, settings.total_steps, row, is_best, points, self.looks())

    @property
    def evaluates(self) -> bool:
        """Whether the epoch that ends at this step is one after which the validation split is measured."""
        settings = self.settings
        epoch = math.ceil(self.step / settings.steps_per_epoch)
        return epoch % settings.evaluate_every == 0 or self.step == settings.total_steps

    def progress(self) -> Progress:
        """Where the epoch is. Raises NonFiniteError for a loss that was none."""
        self._raise_if_loss_was_not_finite()
        metrics = self._metrics_of_all()
        return Progress(
            epoch=self.step // self.settings.steps_per_epoch + 1, step=self.step, total_steps=self.settings.total_steps,
            steps_per_epoch=self.settings.steps_per_epoch, metrics=metrics.compute(), lr=self.lr(self.step - 1),
            examples_per_second=metrics.examples / max(self._epoch_seconds, 1e-9), seconds=self._epoch_seconds,
            points=self._points(metrics), looks=self.looks(),
        )  # fmt: skip

    def looks(self) -> list[Look]:
        """What `training.watch` has seen and no event has told yet."""
        return self.parts.watcher.looks() if self.parts.watcher is not None else []

    def _points(self, metrics: Meter) -> list[Row]:
        """The points of the curves since the last event. Their steps depend on the settings alone, and each batch's
        loss is kept until its epoch ends, so that no step waits for them."""
        settings, first = self.settings, self.step - metrics.updates // self.settings.accumulate
        every, reported, self._reported = settings.point_steps, self._reported, self.step
        if every is None:
            return []
        within = (step for step in range(max(reported, first) + 1, self.step + 1) if not self.settings.ends_epoch(step))
        steps = [step for step in within if step % settings.steps_per_epoch % every == 0]
        losses = metrics.losses_after([(step - first) * settings.accumulate for step in steps]) if steps else []
        return [
            {"step": step, "train/loss": loss, "lr": self.lr(step - 1)}
            for step, loss in zip(steps, losses, strict=True)
        ]

    def evaluate(self, loader: Loader, limit_batches: int | None = None) -> Report:
        """Loss and metrics on a split, with the averaged weights when there are any, by at most so many batches; None:
        by those that the settings allow."""
        parts = self.parts
        network, forward = parts.model, parts.forward
        if parts.average is not None:
            network = forward = parts.average.model
        parts.group.copy(network.buffers())  # statistics of batches, which are the first process's
        report = evaluate(network, forward, loader, parts, limit_batches or self.settings.limit_batches)
        parts.group.add(report.sums)
        report.join(parts.group.joined(report.rows))
        return report

    def _metrics_of_all(self) -> Meter:
        group = self.parts.group
        return self.metrics if group.size == 1 else self.metrics.of_all(group.add)

    @property
    def finished(self) -> bool:
        """Whether the last step is done, or early stopping has ended the training: it depends on the state alone."""
        settings, stopping = self.settings, self.settings.early_stopping
        if self.step >= settings.total_steps or stopping is None or settings.watched is None:
            return self.step >= settings.total_steps
        return stops_early(self.history, stopping, settings.watched)

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, as plain values; the tensors are the live ones.

        Processes that train together call it together, and the first one's is the state of all.

        Raises NonFiniteError rather than hand out numbers that are none.
        """
        self._require_finite()
        kept = {name: state for name, part in self.parts.stateful().items() if (state := part.state_dict())}
        return {
            "about": self.about,
            "step": self.step,
            "history": [dict(row) for row in self.history],
            "model": self.parts.model.state_dict(),
            "optimizer": self.parts.optimizer.state_dict(),
            **dict.fromkeys(ALWAYS_NAMED),
            **kept,
            "metrics": self._metrics_of_all().state_dict(),
            "epoch_seconds": [self._epoch_seconds, self._data_seconds],
            **({WATCHED: self.parts.watcher.state_dict()} if self.parts.watcher is not None else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned. Raises StoredError when it is that of another training."""
        parts, stateful = self.parts, self.parts.stateful()
        require_state_of(parts.model, parts.optimizer.param_groups, stateful, state)
        parts.model.load_state_dict(state["model"])
        kernels = [{key: group.get(key) for key in KERNELS if key in group} for group in parts.optimizer.param_groups]
        parts.optimizer.load_state_dict(state["optimizer"])
        for group, own in zip(parts.optimizer.param_groups, kernels, strict=True):  # those of this device
            group.update(own)
        for name, part in stateful.items():
            if state.get(name):
                part.load_state_dict(state[name])
        if parts.watcher is not None and state.get(WATCHED):
            parts.watcher.load_state_dict(state[WATCHED])
        self.metrics.load_state_dict(state["metrics"], empty=not parts.group.leads)
        self.step, self.history = state["step"], [dict(row) for row in state["history"]]
        self._reported = self.step
        self._epoch_seconds, self._data_seconds = state["epoch_seconds"]
        self._react()

    def _react(self) -> None:
        """Let the learning rate follow the epochs so far, for a schedule that watches them."""
        if self.parts.feedback is not None:
            self._factor = self.parts.feedback(self.history)

    def _raise_if_loss_was_not_finite(self) -> None:
        update = self._metrics_of_all().first_non_finite()
        if update is not None:
            size = self.settings.steps_per_epoch
            bad = (self.step - 1) // size * size + update // self.settings.accumulate
            raise NonFiniteError(bad, self.lr(bad), "loss")

    def _require_finite(self) -> None:
        """Raise NonFiniteError for the loss of any step so far, or for what the last step left behind."""
        self._raise_if_loss_was_not_finite()
        parts = self.parts
        kept: dict[str, Any] = {"weights": parts.model.state_dict()}
        kept |= {name: part.state_dict() for name, part in parts.after_step.items()}
        kept["optimizer state"] = parts.optimizer.state
        for what, values in kept.items():
            if not all_finite(values):
                raise NonFiniteError(self.step - 1, self.lr(max(self.step - 1, 0)), what)

    def close(self) -> None:
        """Free the loaders' processes."""
        self.parts.train.close()
        if self.parts.validation is not None:
            self.parts.validation.close()
