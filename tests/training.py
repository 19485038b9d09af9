"""Tiny trainings for the tests of the trainer: data, experiments, and what two runs must have in common."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from dltrain import Experiment, Run, Trainer, build
from dltrain.commands.fit import fit
from dltrain.console.display import Display
from dltrain.runs import checkpoints

TIMES = (
    "seconds/data", "seconds/compute", "seconds/evaluate", "seconds/checkpoint", "throughput/images_per_second",
)  # fmt: skip
"""The columns that no two trainings share."""

NO_SCALARS = "hparams|images|custom_scalars|reconstructions|samples|watch/(activations|gradients|weights|filters)"
"""What the tags of values have in them that are no curves."""

EVERYTHING: dict[str, Any] = {
    "data": {"validation": 0.2},
    "augmentation": [
        {"name": "random_crop", "padding": 1},
        "horizontal_flip",
        {"name": "rand_augment", "operations": 1},
        {"name": "cutout", "size": 3},
        {"name": "mixup"},
    ],
    "model": {"name": "convnet", "widths": [6, 8], "dropout": 0.3},
    "loss": {"name": "cross_entropy", "label_smoothing": 0.1},
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.001},
    "schedule": {"name": "one_cycle"},
    "training": {
        "epochs": 5,
        "batch_size": 20,
        "accumulate": 2,
        "clip_norm": 1.0,
        "average": {"name": "ema", "decay": 0.9},
        "early_stopping": {"patience": 4},
        "checkpoint_every": 1e-9,
    },
}
"""Every part that a resume could get wrong."""


def write_arrays(path: Path, examples: int = 150, classes: int = 3, size: int = 8) -> Path:
    """An .npz of RGB images whose mean tells the class, with noise."""
    draw = np.random.default_rng(0)
    labels = np.arange(examples) % classes
    images = draw.normal(80 + 40 * labels[:, None, None, None], 40, (examples, 3, size, size))
    np.savez(path, images=images.clip(0, 255).astype(np.uint8), labels=labels)
    return path


def write_folder(path: Path, each: int = 20) -> Path:
    """A folder of PNG files of mixed sizes in two classes."""
    draw = np.random.default_rng(0)
    for label, name in enumerate(("bright", "dark")):
        (path / name).mkdir(parents=True)
        for number in range(each):
            pixels = draw.integers(100 * (1 - label), 155 + 100 * (1 - label), (9 + number % 4, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path / name / f"{number:02d}.png")
    return path


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with dotted keys replaced."""
    document = yaml.safe_load(yaml.safe_dump(base))
    for key, value in changes.items():
        *parents, last = key.split(".")
        place = document
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return document


def write_experiment(folder: Path, changes: dict[str, Any]) -> Path:
    """The file tiny.yaml: EVERYTHING with dotted keys replaced."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(merged(EVERYTHING, changes)))
    return path


def arrays_experiment(path: Path, **changes: Any) -> Experiment:
    """EVERYTHING on the arrays at `path`, with dotted keys (`__` for the dot) replaced."""
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    document = merged(EVERYTHING, {"data.name": "arrays", "data.path": str(path), **dotted})
    return Experiment.parse(yaml.safe_dump(document), "tiny")


def built(experiment: Experiment, progress_seconds: float = 0.0, state: dict[str, Any] | None = None) -> Trainer:
    """Its trainer on the CPU, reporting after every step unless told otherwise. state: to go on from."""
    trainer = build(experiment, "cpu", state)
    if state is not None:
        trainer.load_state_dict(state)
    trainer.settings = replace(trainer.settings, progress_seconds=progress_seconds)
    return trainer


def trained(experiment: Experiment, until: int | None = None) -> Trainer:
    """Its trainer, run to the end or to a step."""
    trainer = built(experiment, 1e9 if until is None else 0.0)
    for event in trainer.run():
        if event.step == until:
            break
    return trainer


def assert_same_state(left: Any, right: Any, where: str = "state") -> None:
    """Equal bit for bit, apart from times."""
    assert type(left) is type(right), where
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype and torch.equal(left, right), where
    elif isinstance(left, dict):
        assert list(left) == list(right), where
        for key in left:
            if key not in (*TIMES, "epoch_seconds"):
                assert_same_state(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), where
        for number, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_same_state(a, b, f"{where}.{number}")
    else:
        assert left == right or (left != left and right != right), where  # or neither is a number


def table(run: Path) -> list[dict[str, str]]:
    """metrics.csv without times."""
    with (run / "metrics.csv").open() as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """All scalars of all event files, as (step, value) in the order of writing, by tag."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(run.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if not re.search(NO_SCALARS, value.tag) and value.tag not in TIMES:
                    found.setdefault(value.tag, []).append((event.step, float(value.tensor.float_val[0])))
    return found


def assert_same_run(left: Path, right: Path) -> None:
    """The same weights, averages, optimizer states, histories, tables and events, bit for bit."""
    for which in ("last.pt", "best.pt"):
        a, b = (checkpoints.load(run / "checkpoints" / which) for run in (left, right))
        a["about"].pop("experiment"), b["about"].pop("experiment")
        assert_same_state(a, b, which)
    assert table(left) == table(right)
    epochs = [int(row["epoch"]) for row in table(right)]
    assert epochs == list(range(1, len(epochs) + 1))
    assert scalars(left) == scalars(right)
    steps = [step for step, _ in scalars(right)["train/loss"]]
    assert steps == sorted(set(steps)) and len(steps) == len(epochs)


SLOW = "import time, dltrain.engine.seeding as s; s.seed_layers = lambda *_: time.sleep({})"
"""Setup of a process whose steps take a while."""


def train(arrays: Path, folder: Path, **changes: Any) -> tuple[int, Run]:
    """A run of EVERYTHING in this process; the exit code and the run."""
    return fit(arrays_experiment(arrays, **changes), None, "cpu", Display(), runs=folder / "runs")


def result(run: Run | Path) -> dict[str, Any]:
    """result.json."""
    content: dict[str, Any] = json.loads(((run.path if isinstance(run, Run) else run) / "result.json").read_text())
    return content
