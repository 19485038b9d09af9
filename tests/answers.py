"""A table of which every task has something to learn, short trainings on it, and a Ctrl-C between two of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from evaluating import invoke

KINDS = ["ant", "bee", "cat, wild"]
LABELS = ["left", 'so "called"', "up; down"]
TASKS = {
    "classification": "target: kind",
    "binary_classification": "target: yes",
    "multilabel": f"target: {LABELS}",
    "regression": "target: size",
    "several numbers": "target: [size, weight]",
    "reconstruction": "target: null",
}
"""What is learned of the table, by the task, or by the name of a run."""
FEATURES = ["x1", "x2", "x3", "x4"]


def write_table(path: Path, rows: int = 240) -> Path:
    """A CSV of four numbers a row, and what follows from them, with some noise."""
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(rows, 4))
    noisy = inputs + draw.normal(0, 0.5, inputs.shape)
    kinds = np.array(KINDS)[noisy[:, :3].argmax(1)]
    quoted = [f'"{name.replace(chr(34), chr(34) * 2)}"' for name in LABELS]
    lines = [",".join([*FEATURES, "kind", "yes", "size", "weight", *quoted])]
    for row, kind, own in zip(inputs, kinds, noisy, strict=True):
        values = [f"{value:.6f}" for value in row]
        numbers = [f"{20 + 5 * own[0]:.4f}", f"{own[1] - own[2]:.4f}"]
        lines.append(",".join([*values, f'"{kind}"', "yes" if own[3] > 0.5 else "no", *numbers,
                               *map(str, (own[:3] > 0.3).astype(int))]))  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    return path


def table_of(folder: Path, target: str = "target: kind") -> str:
    """The `data` section of the table `rows.csv` in a folder, which is written where there is none."""
    path = folder / "rows.csv"
    if not path.is_file():
        write_table(path)
    return f"{{name: table, path: {path}, {target}, features: {FEATURES}, validation: 0.25}}"


@contextmanager
def interrupted(module: ModuleType, train: str) -> Iterator[None]:
    """Every training that a function of a module does is met by a Ctrl-C."""
    trained = getattr(module, train)

    def begin(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return trained(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, train, begin)
        yield


def fit_task(folder: Path, name: str, *overrides: str, run: str = "") -> Path:
    """A run of one of TASKS, trained for a moment on the table `rows.csv` in a folder."""
    data = table_of(folder, TASKS[name])
    file = folder / f"{run or name.replace(' ', '_')}.yaml"
    model = "{name: autoencoder, hidden: [], code: 2}" if name == "reconstruction" else "{name: mlp, hidden: [8]}"
    task = "regression" if name == "several numbers" else name
    file.write_text(f"task: {task}\ndata: {data}\nmodel: {model}\noptimizer: {{lr: 0.1}}\n"
                    "training: {epochs: 2, batch_size: 32}\n")  # fmt: skip
    done = invoke("fit", file, "--runs", folder, "--device", "cpu", *overrides)
    assert done.exit_code == 0, done.output
    return sorted((folder / file.stem).iterdir())[-1]
