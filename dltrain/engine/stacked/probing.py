"""Whether trainings are done faster as one program than one after another, by timing some steps now. Imports torch."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

import torch

from dltrain.data.types import Batch, Splits
from dltrain.engine.builder import build_together
from dltrain.engine.decisions import Decision
from dltrain.engine.length import TIMED_STEPS, forget
from dltrain.engine.stacked.conditions import why_not_stacked
from dltrain.engine.stacked.network import NotStackable
from dltrain.engine.stacked.training import StackedTraining
from dltrain.experiment.experiment import Experiment
from dltrain.runs.reports import NonFiniteError

TURNS = 3
"""How often both ways are timed, in turn."""
SECONDS = 0.1
"""The least time of a turn, after its first step; larger networks take a step."""
CLEARLY = 0.9
"""A step of all must take at most this share of a step of each: what is within the noise is done as usual."""

Watch = Callable[[Iterator[Batch]], Iterator[Batch]]


class _Enough(Exception):
    """The turn is over."""


def faster_stacked(
    experiments: Sequence[Experiment], device: str = "auto", plugins: dict[str, str] | None = None,
    splits: Splits | None = None,
) -> Decision:  # fmt: skip
    """How many of these experiments to train at once, beside what else this machine does now: all, or 1, and why.

    splits: see build. The trainers that are timed are thrown away. Raises ConfigError when the data does not fit.
    """
    if (reason := why_not_stacked(experiments)) is not None:
        return Decision(1, reason)
    try:
        together, alone = _timed(experiments, device, plugins, splits)
    except NotStackable as error:
        return Decision(1, str(error))
    except NonFiniteError as error:
        return Decision(1, f"no step can be timed: {error}")
    except torch.OutOfMemoryError:
        return Decision(1, f"{len(experiments)} trainings do not fit into the memory of the device")
    finally:
        forget()
    costs = f"{together:.2g} s a step of {len(experiments)} together, {alone:.2g} s a step of one"
    faster = together < CLEARLY * len(experiments) * alone
    return Decision(len(experiments) if faster else 1, f"the faster now: {costs}")


def _timed(
    experiments: Sequence[Experiment], device: str, plugins: dict[str, str] | None, splits: Splits | None
) -> tuple[float, float]:
    """Seconds of a step of all, and of one."""
    settings = {"training.compile": False, "training.evaluate_every": TIMED_STEPS}
    longest = [experiment.lasting(TIMED_STEPS).override_all(settings) for experiment in experiments]
    *trainers, one = build_together([*longest, longest[0]], device, None, plugins, splits, timing=True)
    with contextlib.closing(one):
        ways: list[Callable[[Watch], Iterator[Any]]] = [StackedTraining(trainers).run, one.run]
        found: tuple[list[float], list[float]] = ([], [])
        for _ in range(TURNS):
            for run, seconds in zip(ways, found, strict=True):
                seconds.append(_turn(run, one.parts.device))
    return median(found[0]), median(found[1])


def _turn(run: Callable[[Watch], Iterator[Any]], device: torch.device) -> float:
    """Seconds of a step, the median of some."""
    steps: list[float] = []

    def watch(batches: Iterator[Batch]) -> Iterator[Batch]:
        yield next(batches)  # what is chosen and reserved once
        while not steps or math.fsum(steps) < SECONDS:
            started = time.perf_counter()
            yield next(batches)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            steps.append(time.perf_counter() - started)
        raise _Enough

    with contextlib.suppress(_Enough):
        for _ in run(watch):  # of several, one that leaves the numbers changes little
            pass
    return median(steps) if steps else math.inf
