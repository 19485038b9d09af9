"""Pairs of trainings with one seed: what both reached, and by how much they differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dltrain.errors import RunError
from dltrain.runs.run import Run


@dataclass(frozen=True)
class Pair:
    """Two trainings with one seed. values: what the base and the changed experiment reach. seconds: that both took."""

    seed: int
    values: tuple[float, float]
    seconds: tuple[float, float]


def is_finished(place: Path) -> bool:
    """Whether a training in a directory came to its end."""
    return Run(place).read_json("result.json").get("state") == "finished"


def pair_of(seed: int, base: Path, changed: Path, tag: str) -> Pair:
    """What two finished trainings reached. Raises RunError where one has no such number."""
    values, seconds = [], []
    for place in (base, changed):
        result = Run(place).read_json("result.json")
        best = result.get("best")
        value = best.get(tag) if isinstance(best, dict) else None
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise RunError(f"{place} has no `{tag}` that is a number, so that its pair says nothing")
        values.append(float(value))
        seconds.append(float(result.get("seconds") or 0.0))
    return Pair(seed, (values[0], values[1]), (seconds[0], seconds[1]))


def differences(pairs: Sequence[Pair]) -> np.ndarray:
    """(n,) float64: changed minus base."""
    return np.array([changed - base for base, changed in (pair.values for pair in pairs)])
