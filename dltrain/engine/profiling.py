"""`fit --profile`: a trace of some steps, and the operations that took most of them. Imports torch.

Each request for a batch is the border between two steps; the training itself does not know that it is watched.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from dltrain.data.types import Batch
from dltrain.engine.trainer import Trainer

WARM_UP = 10
"""Steps before the first that is traced, if there are as many: kernels are compiled and chosen in them."""
MOST_EXPENSIVE = 10
LONGEST_NAME = 60


class Profiler:
    """Traces `steps` steps of a training, the first WARM_UP left out, into a file in `folder`."""

    def __init__(self, trainer: Trainer, folder: Path, steps: int) -> None:
        left = trainer.settings.total_steps - trainer.step
        steps = min(steps, max(left - 1, 1))  # the last step comes with an evaluation
        self.begin = trainer.step
        self.first = trainer.step + min(WARM_UP, max(left - 1 - steps, 0))
        self.last = self.first + steps - 1
        self.path = folder / f"steps_{self.first + 1}-{self.last + 1}.pt.trace.json"
        """What TensorBoard's profiler plug-in, ui.perfetto.dev and chrome://tracing read."""
        self._on_gpu = trainer.parts.device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._on_gpu else [])]
        # Kineto's log says that there is no GPU as an error; it reads this when it first speaks.
        os.environ.setdefault("KINETO_LOG_LEVEL", "5")
        self._profile: Any = profile(activities=activities)
        self._running = False
        self._news: list[str] = []

    def watch(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches. Steps are named as TensorBoard's plug-in expects it."""
        try:
            step = self.begin
            while step < self.first:
                yield next(batches)
                step += 1
            if self._on_gpu:
                torch.cuda.synchronize()  # what was begun before is no part of the trace
            self._profile.start()
            self._running = True
            while step <= self.last:
                with record_function(f"ProfilerStep#{step}"):
                    with record_function("batch"):
                        batch = next(batches)
                    yield batch
                step += 1
            self.finish()
            yield from batches
        finally:
            self.finish()

    def finish(self) -> None:
        """Write what was traced, if that is not done yet."""
        if not self._running:
            return
        self._running = False
        self._profile.stop()
        self.path.parent.mkdir(exist_ok=True)
        self._profile.export_chrome_trace(str(self.path))
        steps = f"steps {self.first + 1} to {self.last + 1}"
        self._news = [f"trace of {steps}: {self.path}", *self._table()]

    def news(self) -> list[str]:
        """What there is to say that was not said yet: where the trace is, and its most expensive operations."""
        news, self._news = self._news, []
        return news

    def _table(self) -> list[str]:
        """Time of an operation itself, without those that it calls: of the GPU's kernels, or on the CPU."""
        spent = []
        for event in self._profile.key_averages():
            of_device = event.device_type.name != "CPU"
            if of_device == self._on_gpu and not event.is_user_annotation:
                spent.append((event.self_device_time_total if of_device else event.self_cpu_time_total, event))
        whole = sum(time for time, _ in spent) or 1.0
        spent.sort(key=lambda pair: -pair[0])
        steps = self.last - self.first + 1
        lines = ["     share  ms a step  calls a step  operation"]
        for time, event in spent[:MOST_EXPENSIVE]:
            name = event.key if len(event.key) <= LONGEST_NAME else event.key[: LONGEST_NAME - 1] + "…"
            lines.append(f"  {time / whole:>8.1%}  {time / 1000 / steps:>9.3f}  {event.count / steps:>12.1f}  {name}")
        return lines
