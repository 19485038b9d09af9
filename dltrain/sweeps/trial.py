"""What a worker of a search does: it trains one run after another, and says after each epoch what it has reached.

    legs (what to train) -> Worker -> Began -> Reached, Reached, ... -> Ended

A leg is a training from its beginning, or from its last checkpoint, to its end or to where it is parked. The worker
waits after each event for the word to go on, so that whoever judges trials can park one there. Everything that passes
is plain data: a worker may be this process, another one, or one on another machine.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dltrain.commands.failures import judge
from dltrain.commands.fit import Begun, ByEpochs, Hyperparameters, fit_by_epochs, resume_by_epochs
from dltrain.commands.resuming import PLACES
from dltrain.config import ConfigError
from dltrain.console.display import Display
from dltrain.data.types import Splits
from dltrain.engine.stacked import NotStackable, build_stacked, members_of
from dltrain.engine.torch_threads import TORCH_THREADS, forget_last_training
from dltrain.errors import RunError
from dltrain.experiment.experiment import Experiment
from dltrain.runs.checkpoints import is_sound
from dltrain.runs.interrupts import Signals
from dltrain.runs.reports import Row
from dltrain.runs.run import Failure, Run


@dataclass(frozen=True)
class Leg:
    """What to train: one run of a trial. run: with which of its seeds, from 0. values: by dotted key. shown: what
    recorders show of it. epochs: how long, the schedule compressed to fit; None: as long as the experiment says."""

    trial: int
    run: int
    folder: Path
    values: dict[str, Any]
    shown: Hyperparameters
    epochs: float | None = None


@dataclass(frozen=True)
class Began:
    """The network stands. rows: of the epochs that are done. parameters: how many numbers it learns. note: what there
    is to say of how it is trained."""

    rows: list[Row]
    parameters: int
    note: str | None = None


@dataclass(frozen=True)
class Reached:
    """An epoch has ended."""

    row: Row


@dataclass(frozen=True)
class Ended:
    """A leg has. code: 0 when the training is finished or was parked as it was told, 128 and more after a signal.
    seconds: that it took, of legs that are trained together its share. finished: whether nothing is left to train."""

    code: int
    seconds: float
    finished: bool
    failure: Failure | None = None


Event = Began | Reached | Ended
Events = list[Event | None]
"""Of legs that are trained together, one for each."""


@dataclass(frozen=True)
class Setup:
    """What all trials have in common: what a worker is made from, in whatever process. text: the experiment without its
    sweep. threads: of torch, where it does not take all; None: its own number. plugins: path -> sha256."""

    text: str
    name: str
    device: str
    plugins: dict[str, str] = field(default_factory=dict)
    threads: int | None = None

    def experiment(self) -> Experiment:
        """What a trial changes."""
        return Experiment.parse(self.text, self.name)


class Worker:
    """Trains legs, one or several together. It keeps the data between them. splits: the data, where this process has
    read it already."""

    def __init__(self, setup: Setup, experiment: Experiment, splits: Splits | None = None) -> None:
        self.setup, self.experiment = setup, experiment
        if setup.threads is not None:
            torch.set_num_threads(setup.threads)
        self._threads = TORCH_THREADS.default
        self._data, self._splits = (experiment.data if splits is not None else None), splits
        self._legs: Generator[Events, list[bool], None] | None = None
        gc.unfreeze()
        gc.collect()
        gc.freeze()  # what is there now stays: each trial would spend 0.2 s to look for garbage in it

    def begin(self, legs: Sequence[Leg]) -> Events:
        """Train legs until their first events, one for each; those of several are trained as one program, or one after
        another where that cannot be. None: a leg has nothing to say now."""
        self._legs = self._alone(legs) if len(legs) == 1 else self._together(legs)
        return next(self._legs)

    def go_on(self, park: list[bool]) -> Events:
        """Train until the next events. park: of each leg, whether it ends here, with a checkpoint."""
        assert self._legs is not None
        return self._legs.send(park)

    def drop(self) -> None:
        """End what trains, at once."""
        if self._legs is not None:
            self._legs.close()

    def _alone(self, legs: Sequence[Leg], note: str | None = None) -> Generator[Events, list[bool], None]:
        """One leg after another. note: why they are not trained together."""
        for place, leg in enumerate(legs):
            forget_last_training(self._threads)
            with contextlib.closing(self._events(leg, self._training(leg))) as events:
                event = next(events)
                while True:
                    if isinstance(event, Began):
                        event, note = replace(event, note=note), None
                    park = yield [event if other == place else None for other in range(len(legs))]
                    if isinstance(event, Ended):
                        break
                    event = events.send(park[place])

    def _together(self, legs: Sequence[Leg]) -> Generator[Events, list[bool], None]:
        forget_last_training(self._threads)
        try:
            experiments = [self._experiment(leg) for leg in legs]
            stack = build_stacked(
                experiments, self.setup.device, plugins=self.setup.plugins, splits=self._splits_of(experiments[0])
            )
        except Exception as error:  # a setting that cannot be built is found out by itself
            why = str(error) if isinstance(error, NotStackable) else f"{type(error).__name__}: {error}"
            yield from self._alone(legs, f"these trials are trained one after another: {why}")
            return
        with contextlib.closing(stack), Signals() as signals, contextlib.ExitStack() as opened:
            running = [
                self._events(leg, self._fit(leg, experiment, trainer=trainer, signals=signals), len(legs))
                for leg, experiment, trainer in zip(legs, experiments, members_of(stack), strict=True)
            ]
            for each in running:
                opened.enter_context(contextlib.closing(each))
            events: Events = [next(each) for each in running]
            while any(events):
                park = yield events
                events = [
                    each.send(parked) if isinstance(event, (Began, Reached)) else None
                    for each, event, parked in zip(running, events, park, strict=True)
                ]

    def _events(self, leg: Leg, training: Callable[[], ByEpochs], together: int = 1) -> Generator[Event, bool, None]:
        """What happens in a leg. training: makes what trains it. together: legs that are trained at once."""
        started = time.perf_counter()
        code, failure, begun = 1, None, (leg.folder / "experiment.yaml").is_file()
        try:
            code, failure = yield from _followed(training())
        except Exception as error:  # whatever a setting brings about, the others can still be tried
            failure = judge(error, leg.folder)
            if begun and isinstance(error, RunError):  # it could be trained before
                failure = replace(failure, of_machine=True)
            if not isinstance(error, (ConfigError, RunError)):
                with contextlib.suppress(OSError):
                    leg.folder.mkdir(parents=True, exist_ok=True)
                Run(leg.folder).log(traceback.format_exc())
        finished = code == 0 and Run(leg.folder).read_json("result.json").get("state") == "finished"
        yield Ended(code, round((time.perf_counter() - started) / together, 3), finished, failure)

    def _training(self, leg: Leg) -> Callable[[], ByEpochs]:
        return lambda: self._resume(leg) if _can_go_on(leg.folder) else self._fit(leg, self._experiment(leg))()

    def _resume(self, leg: Leg) -> ByEpochs:
        setup = self.setup
        device = None if setup.device == "auto" else setup.device
        data = self.experiment.model_dump(mode="json")["data"]
        where = [f"{key}={json.dumps(data[key[5:]])}" for key in PLACES if key[5:] in data]
        return resume_by_epochs(
            str(leg.folder), device, Display(quiet=True), plugins=setup.plugins, hyperparameters=leg.shown,
            overrides=where,
        )  # fmt: skip

    def _fit(self, leg: Leg, experiment: Experiment, **options: Any) -> Callable[[], ByEpochs]:
        return partial(
            fit_by_epochs, experiment, leg.folder, self.setup.device, Display(quiet=True), plugins=self.setup.plugins,
            hyperparameters=leg.shown, splits=self._splits_of(experiment), **options,
        )  # fmt: skip

    def _experiment(self, leg: Leg) -> Experiment:
        experiment = self.experiment.override_all(leg.values)
        if leg.epochs is None:
            return experiment
        return shortened(experiment, leg.epochs, len(self._splits_of(experiment).train))

    def _splits_of(self, experiment: Experiment) -> Splits:
        """The data of an experiment, read once for all trials that have the same. No trial can read its test part."""
        if self._splits is None or self._data != experiment.data:
            self._data, self._splits = experiment.data, experiment.load_data().sealed()
        return self._splits


def _followed(training: ByEpochs) -> Generator[Event, bool, tuple[int, Failure | None]]:
    """The events of a training; its exit code, and why it failed."""
    with contextlib.closing(training):
        try:
            event = next(training)
            while True:
                if isinstance(event, Begun):
                    park = yield Began(event.rows, event.parameters)
                else:
                    park = yield Reached(dict(event.metrics))
                event = training.send(park)
        except StopIteration as end:
            code, run = end.value
    return code, run.failure


def shortened(experiment: Experiment, epochs: float, examples: int) -> Experiment:
    """The experiment with so many epochs, its schedule compressed. examples: of the training split."""
    training = experiment.training
    if training.steps is None:
        return experiment.override("training.epochs", epochs)
    per_epoch = min(-(-examples // training.batch_of(examples)), training.limit_batches or sys.maxsize)
    return experiment.override("training.steps", max(round(epochs * per_epoch), 1))


def _can_go_on(folder: Path) -> bool:
    """Whether a training was begun there that can go on. One whose checkpoint a fault of the disk has damaged is taken
    away."""
    begun = (folder / "experiment.yaml").is_file()
    if begun and (last := Run(folder).last).exists() and not is_sound(last):
        shutil.rmtree(folder)
        return False
    return begun


def finite(row: Row) -> Row:
    """The numbers of a row that are numbers."""
    return {key: value for key, value in row.items() if math.isfinite(value)}
