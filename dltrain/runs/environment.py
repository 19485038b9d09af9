"""What the numbers of a run depend on besides its experiment: for environment.json and recorders."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("dltrain", "torchvision", "timm", "numpy", "pydantic", "optuna", "pillow")


Hyperparameters = dict[str, str | int | float | bool]
"""By dotted key, with plain values."""


def versions() -> dict[str, str | None]:
    """The version of Python, and of each package that a training depends on."""
    import torch

    return {
        "python": platform.python_version(), **{name: _version(name) for name in PACKAGES},
        "torch": str(torch.__version__),
    }  # fmt: skip


def environment(about: dict[str, Any], seed: int) -> dict[str, Any]:
    """The content of environment.json. about: what the run's checkpoints say of themselves."""
    packages = versions()
    return {
        "python": packages.pop("python"), "platform": platform.platform(), "packages": packages,
        "command": sys.argv, "git_commit": _git_commit(), "seed": seed,
        "data_fingerprint": about["fingerprint"], "skipped": about["skipped"],
        "decisions": about["decisions"], "plugins": about["plugins"],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }  # fmt: skip


@cache  # it is searched for among the files of all packages
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def flatten(experiment: dict[str, Any]) -> Hyperparameters:
    """Settings of an experiment as dotted keys with plain values: the hyperparameters that recorders show."""
    flat: Hyperparameters = {}

    def walk(value: Any, prefix: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{prefix}.{key}" if prefix else key)
        elif isinstance(value, (str, int, float, bool)):
            flat[prefix] = value
        elif value is None:
            flat[prefix] = "null"
        else:
            names = [item["name"] if isinstance(item, dict) and "name" in item else item for item in value]
            flat[prefix] = ", ".join(map(str, names))

    walk(experiment, "")
    return flat
