"""`doctor`: what this machine offers, which extras are there, and what dltrain will do with it all."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement

from dltrain.data.loading.resources import crowded, free_memory, size, usable_cores
from dltrain.engine.decisions import device_name, threads_of_environment
from dltrain.engine.torch_threads import TORCH_THREADS
from dltrain.experiment.experiment import Experiment
from dltrain.planning.plan import plan
from dltrain.runs.environment import versions

EXAMPLES = {
    "a small training": "{data: digits, model: {name: mlp, hidden: [128]}, training: {epochs: 20}}",
    "a large one": "{data: {name: synthetic, shape: [3, 64, 64]}, model: resnet18, training: {epochs: 3000}}",
}
"""Trainings whose decisions are shown."""
SHOWN = ("device", "precision", "compile", "channels_last", "threads", "loader", "workers")
UNITS = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "sve", "bf16")
"""Of a CPU, as torch calls them: those that decide how fast a training is."""
OF_DEVELOPERS = ("test", "benchmark")
"""Extras that no user of dltrain needs."""
LITTLE_DISK, LITTLE_MEMORY = 2e9, 1e9
"""Bytes below which there is a warning: a few checkpoints of a large network, and torch with a small one."""


def examined(device: str = "auto") -> dict[str, Any]:
    """All as plain values. device: what trainings would ask for. Raises ValueError when it is not there."""
    trainings = {
        name: {key: decided[key] for key in SHOWN if key in decided}
        for name, text in EXAMPLES.items()
        for decided in [plan(Experiment.parse(text, name), device)["decisions"]]
    }
    machine = _machine()
    return {
        "machine": machine, "devices": list(_devices()), "versions": versions(), "extras": extras(),
        "trainings": trainings, "warnings": list(_warnings(machine)),
    }  # fmt: skip


def _machine() -> dict[str, Any]:
    disk = shutil.disk_usage(Path.cwd())
    return {
        "platform": platform.platform(), "cores": os.cpu_count() or 1, "usable_cores": usable_cores(),
        "threads": TORCH_THREADS.default, "omp_num_threads": threads_of_environment(),
        "free_memory_bytes": free_memory(torch.device("cpu")), "free_disk_bytes": disk.free,
        "compiler": next((name for name in ("g++", "clang++", "cl") if shutil.which(name)), None),
    }  # fmt: skip


def _devices() -> Iterator[dict[str, Any]]:
    """What trainings can run on, with the name of each."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions do not say
    yield {
        "device": "cpu", "name": device_name(torch.device("cpu")),
        "units": [name for name in UNITS if capabilities.get(name) is True],
    }  # fmt: skip
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield {
            "device": f"cuda:{index}", "name": properties.name, "memory_bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
        }  # fmt: skip
    if torch.backends.mps.is_available():
        yield {"device": "mps", "name": "Apple GPU"}


def extras(package: str = "dltrain") -> list[dict[str, Any]]:
    """The optional parts of a package for its users, in the order of their names: what each needs, which version of it
    is here, None for none, and whether all are new enough. Empty where the package is not installed."""
    try:
        stated = [Requirement(text) for text in requires(package) or ()]
    except PackageNotFoundError:
        return []
    found: dict[str, dict[str, str | None]] = {}
    lacking: set[str] = set()
    for each in stated:
        extra = re.search(r"extra\s*==\s*[\"']([\w-]+)", str(each.marker or ""))
        if extra is None or extra[1] in OF_DEVELOPERS:
            continue
        here = _version(each.name)
        found.setdefault(extra[1], {})[each.name] = here
        if here is None or not each.specifier.contains(here, prereleases=True):
            lacking.add(extra[1])
    return [
        {
            "extra": name, "packages": found[name], "installed": name not in lacking,
            "install": f"pip install '{package}[{name}]'",
        }
        for name in sorted(found)
    ]  # fmt: skip


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _warnings(machine: dict[str, Any]) -> Iterator[str]:
    """What may spoil a training here."""
    if (busy := crowded(machine["threads"])) is not None:
        yield busy
    if machine["free_memory_bytes"] < LITTLE_MEMORY:
        yield f"only {size(machine['free_memory_bytes'])} of memory are free: trainings may be killed"
    if machine["free_disk_bytes"] < LITTLE_DISK:
        yield f"only {size(machine['free_disk_bytes'])} of disk are free here: checkpoints may not fit; --runs DIR"
    if machine["compiler"] is None:
        yield "there is no C++ compiler: `training.compile` stays off"


def told(found: dict[str, Any]) -> str:
    """The same for people."""
    return "\n".join(_lines(found))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    machine = found["machine"]
    asked = f", {machine['omp_num_threads']} by OMP_NUM_THREADS" if machine["omp_num_threads"] else ""
    yield f"machine   {machine['platform']}"
    cores = f"{machine['usable_cores']} of {machine['cores']} for this process"
    yield f"  cores   {cores}; torch takes {machine['threads']} threads{asked}"
    yield f"  free    {size(machine['free_memory_bytes'])} of memory, {size(machine['free_disk_bytes'])} of disk here"
    yield f"  C++     {machine['compiler'] or 'no compiler'}"
    for each in found["devices"]:
        more = [f"units {', '.join(each['units'])}"] if each.get("units") else []
        more += [size(each["memory_bytes"]), f"capability {each['capability']}"] if "memory_bytes" in each else []
        yield f"device    {each['device']}: {', '.join([each['name'], *more])}"
    yield "versions  " + ", ".join(f"{name} {number or 'not installed'}" for name, number in found["versions"].items())
    for each in found["extras"]:
        packages = ", ".join(f"{name} {number or 'missing'}" for name, number in each["packages"].items())
        lacks = "" if each["installed"] else f"; {each['install']}"
        yield f"extra     {each['extra']}: {packages}{lacks}"
    for name, decisions in found["trainings"].items():
        yield f"{name} would have"
        for key, decision in decisions.items():
            value = str(decision["value"]).lower() if isinstance(decision["value"], bool) else decision["value"]
            yield f"  {key:<14}{value} ({decision['reason']})"
    for text in found["warnings"]:
        yield f"warning: {text}"
