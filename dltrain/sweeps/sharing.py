"""How the workers of a search share a machine: its cores, its devices and its memory."""

from __future__ import annotations

from dataclasses import replace

from dltrain.data.loading.resources import free_main_memory, size, usable_cores
from dltrain.data.types import Splits
from dltrain.engine.decisions import count_devices, threads_of_environment
from dltrain.engine.resolve import resolve
from dltrain.errors import RequestError
from dltrain.experiment.experiment import Experiment
from dltrain.sweeps.trial import Setup

WORKER_BYTES = 400_000_000
"""What a process takes that trains a small network on a CPU, without its data: torch is most of it."""


def shared(setup: Setup, jobs: int) -> list[Setup]:
    """What each of so many workers is made from. Each takes its part of the cores, and GPUs are dealt out in turn.

    A number of threads in the environment stands above this, and one in the experiment stands above both.
    """
    threads = None if threads_of_environment() is not None else max(usable_cores() // jobs, 1)
    devices = count_devices(setup.device)
    if devices is None or ":" in setup.device or setup.device == "mps":
        return [replace(setup, threads=threads)] * jobs
    return [replace(setup, threads=threads, device=f"cuda:{job % devices}") for job in range(jobs)]


def require_memory(experiment: Experiment, splits: Splits, jobs: int) -> None:
    """Raise RequestError when main memory does not suffice for so many workers, each with the data."""
    layout = resolve(experiment, splits, rough=True).preprocessing.train
    each, free = WORKER_BYTES + splits.train.bytes_on(layout), free_main_memory()
    if jobs * each > free:
        most = max(int(free // each), 1)
        raise RequestError(
            f"--jobs {jobs}: each takes about {size(each)}, and {size(free)} of memory are free; --jobs {most} would do"
        )
