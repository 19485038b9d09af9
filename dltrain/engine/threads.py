"""How many threads the steps of a training take on a CPU, by timing some of them now. Imports torch.

On a quiet machine all cores are faster, beside a busy program one thread is (benchmarks/README.md, busy).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from statistics import median

from dltrain.data.types import Batch
from dltrain.engine.decisions import Decision, pick_device, threads_of_environment
from dltrain.engine.length import TIMED_STEPS, Assemble, forget
from dltrain.engine.torch_threads import TORCH_THREADS
from dltrain.experiment.experiment import Experiment
from dltrain.runs.reports import NonFiniteError

TURNS = 5
"""How often each number of threads is timed, in turn; the median of them counts."""
ENOUGH = 3.0
"""Seconds after which one turn of each is enough: of large networks, and where threads wait for each other."""
SECONDS = 0.1
"""The least time of a turn, after its first step, which wakes threads; larger networks take a step."""
CLEARLY = 0.95
"""Fewer threads must need at most this share of the time: what is within the noise stays as torch has it."""


def probes_threads(experiment: Experiment, device: str) -> bool:
    """Whether there is something to time: on a CPU with several threads, where the environment does not say."""
    asked = experiment.training.threads == "probe" and threads_of_environment() is None
    return asked and pick_device(device).type == "cpu" and TORCH_THREADS.default > 1


def faster_threads(experiment: Experiment, assemble: Assemble) -> Decision:
    """One thread or as many as torch has, whichever trains faster beside what else this machine does now.

    The trainer that is timed is thrown away. Raises ConfigError when no step can be timed.
    """
    every = TORCH_THREADS.default
    times: dict[int, list[float]] = {every: [], 1: []}

    def in_turn(batches: Iterator[Batch]) -> Iterator[Batch]:
        yield next(batches)  # what is chosen and reserved once
        while True:
            for threads, spent in times.items():
                TORCH_THREADS.set(threads)
                yield next(batches)
                steps, started = 0, time.perf_counter()
                while (seconds := time.perf_counter() - started) < SECONDS or steps == 0:
                    yield next(batches)
                    steps += 1
                spent.append(seconds / steps)

    shortened = experiment.lasting(TIMED_STEPS).override("training.compile", False)
    trainer = assemble(shortened, timing=True)
    began = time.perf_counter()
    try:
        with contextlib.closing(trainer):
            for _ in trainer.run(in_turn):
                turns = len(times[1])
                if turns >= TURNS or (turns and time.perf_counter() - began > ENOUGH):
                    break
    except NonFiniteError as error:
        raise experiment.error("training.threads", f"no step can be timed: {error}") from None
    finally:
        TORCH_THREADS.set(every)
    del trainer
    forget()
    all_of_them, alone = median(times[every]), median(times[1])
    costs = f"{alone:.2g} s a step with one thread, {all_of_them:.2g} s with {every}"
    return Decision(1 if alone < CLEARLY * all_of_them else every, f"the faster when the run began: {costs}")
