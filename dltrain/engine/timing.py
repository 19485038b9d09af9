"""Where the time of a training went, and which setting would save the most of it.

The clock is the host's, and inside an epoch it waits for the device only when progress is reported:
    start       until the first step
    first_step  what the first step took beyond a usual one: compiling, choice of kernels
    data        waiting for the next batch: on a GPU, how long the host waited, while the device may have been busy
    compute     the rest of training: augmentation, forward, backward, optimizer
    evaluate    the validation split, and the metrics of the epoch
    checkpoint  writing the training's state, inside epochs and after them
    other       tables, events and display, and an epoch that was not finished
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dltrain.data.datasets import ImageFolder
from dltrain.experiment.experiment import Experiment
from dltrain.runs.reports import Row

PARTS = ("data", "compute", "evaluate", "checkpoint")
"""What every epoch reports, as `seconds/<part>`."""
LEAST_SHARE, LEAST_SECONDS = 0.1, 2.0
"""Below either of them nothing is said about what could be saved."""
NEGLIGIBLE = 0.03
"""The share that evaluation or checkpoints have with the value that is proposed."""


class Clock:
    """What the trainer cannot see: the time until its first step, and that of checkpoints. Seconds."""

    def __init__(self, earlier: Mapping[str, Any]) -> None:
        """earlier: the result.json of what is continued, or nothing."""
        self._begun = time.perf_counter()
        self._earlier: float = earlier.get("seconds", 0.0)
        before = earlier.get("time", {})
        self._start: float = before.get("start", 0.0)
        self._first_step: float = before.get("first_step", 0.0)
        self.inside = 0.0
        """Checkpoints inside epochs, by this process."""

    def starts(self) -> None:
        """The first step comes next."""
        self._start += self.seconds - self._earlier

    @property
    def seconds(self) -> float:
        """The whole training so far, earlier processes included."""
        return self._earlier + time.perf_counter() - self._begun

    def parts(self, history: Sequence[Row], first_step: float) -> dict[str, float]:
        """Seconds of each part; they add up to `seconds`. first_step: that of this process, 0 before it is done."""
        spent = {part: sum(row[f"seconds/{part}"] for row in history) for part in PARTS}
        extra = self._first_step + beyond_usual(history, first_step)
        spent = {"start": self._start, "first_step": extra, **spent}
        spent["compute"] = max(spent["compute"] - extra, 0.0)
        return {**spent, "other": max(self.seconds - sum(spent.values()), 0.0)}


def beyond_usual(history: Sequence[Row], first_step: float) -> float:
    """What the first step took beyond the mean of the others; 0 before an epoch is done."""
    steps = int(history[-1]["step"]) if history else 0
    compute = sum(row["seconds/compute"] for row in history)
    if steps < 2 or first_step > compute:
        return 0.0
    return max(first_step - (compute - first_step) / (steps - 1), 0.0)


def shares(parts: Mapping[str, float]) -> dict[str, float]:
    """Each part's share of the whole, 0..1."""
    whole = max(sum(parts.values()), 1e-9)
    return {part: round(seconds / whole, 4) for part, seconds in parts.items()}


class Saving(NamedTuple):
    """Seconds that a setting would save, at most."""

    seconds: float
    reason: str
    setting: str


def advice(
    parts: Mapping[str, float], experiment: Experiment, decisions: Mapping[str, Any], *,
    evaluations: int, inside: float,
) -> str | None:  # fmt: skip
    """The largest share of the time that a setting can save, in a line; None when that is not worth a word.

    evaluations: how many there were. inside: seconds of checkpoints inside epochs.
    """
    whole = sum(parts.values())
    found = [*_of_data(parts["data"], experiment, decisions), *_of_evaluation(parts, experiment, evaluations)]
    if inside:
        minutes = math.ceil(experiment.training.checkpoint_every * inside / (NEGLIGIBLE * whole))
        reason = "checkpoints inside epochs"
        found.append(Saving(inside, reason, f"training.checkpoint_every={minutes} (minutes) writes fewer"))
    if decisions["compile"]["value"]:
        found.append(Saving(parts["first_step"], "compiling", "training.compile=false goes without, with slower steps"))
    best = max(found, default=None)
    if best is None or best.seconds < max(LEAST_SHARE * whole, LEAST_SECONDS):
        return None
    return f"{best.seconds / whole:.0%} of the time went into {best.reason}: {best.setting}"


def _of_data(seconds: float, experiment: Experiment, decisions: Mapping[str, Any]) -> list[Saving]:
    """Resident images are only gathered: there is nothing to set."""
    if decisions["loader"]["value"] == "resident":
        return []
    if isinstance(experiment.data, ImageFolder) and not experiment.data.cache:
        setting = "data.cache=true decodes them once"
    else:
        setting = "data.loader=resident keeps them on the device, if its memory has room"
    return [Saving(seconds, f"waiting for {experiment.data.inputs.one}s", setting)]


def _of_evaluation(parts: Mapping[str, float], experiment: Experiment, evaluations: int) -> list[Saving]:
    if evaluations < 2:
        return []
    rest = sum(parts.values()) - parts["evaluate"]
    fewer = min(math.ceil(parts["evaluate"] / (NEGLIGIBLE * max(rest, 1e-9))), evaluations)
    setting = f"training.evaluate_every={fewer * experiment.training.evaluate_every} (epochs) does it less often"
    return [Saving(parts["evaluate"] * (1 - 1 / fewer), "evaluation that can be spared", setting)]
