"""What the benchmarks share: contestants that run in turn, each in a process of its own, and their ratios."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any


def installed(names: Iterable[str], needs: Mapping[str, str]) -> list[str]:
    """The contestants whose package is there; a line for each that is left out."""
    found = []
    for name in names:
        if name in needs and find_spec(needs[name]) is None:
            print(f"{name:<12} left out: {needs[name]} is not installed (pip install {needs[name]})")
        else:
            found.append(name)
    return found


def in_turn(names: Sequence[str], rounds: int, options: Sequence[str] = ()) -> dict[str, list[Any]]:
    """What `<this command> OPTIONS --only NAME` prints as its last line, by name, a value for each round."""
    results: dict[str, list[Any]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            command = [sys.executable, *sys.argv, *options, "--only", name, "--round", str(number)]
            environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr}")
            results[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
    return results


def machine(*packages: str) -> str:
    """What the numbers were measured on."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [f"{cores} cores, {platform.machine()}", f"torch {torch.__version__}"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    for name in packages:
        try:
            parts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(parts)


def spread(values: Sequence[float], form: str = ",.2f") -> str:
    """The median, the smallest and the largest."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def ratio(above: Sequence[float], below: Sequence[float]) -> str:
    """The median of the ratios of the same round, the smallest and the largest."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def quarters(above: Sequence[float], below: Sequence[float]) -> str:
    """The median of the ratios of the same round, and what half of them lie between."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.3f} (half of them {low:.3f} to {high:.3f})"
