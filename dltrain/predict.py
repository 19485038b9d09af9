"""`predict`: label image files with a checkpoint, by exactly the preprocessing of its evaluation."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from dltrain.builder import restore_predictor
from dltrain.config import ConfigError
from dltrain.data.canvas import IMAGE_SUFFIXES, decode, place
from dltrain.evaluate import find_checkpoint
from dltrain.runs import Run, RunError


def predict_files(path: str, inputs: list[Path], form: str, which: str, device: str, batch_size: int = 64) -> int:
    """Write a row per image to stdout: path, class, probability, and the probability of every class.

    form: `csv` or `jsonl`. Files that cannot be read are named on stderr; the exit code is then 1.
    Raises RunError when a path does not exist or holds no image.
    """
    files = list(image_files(inputs))
    run, file = Run.open(path)
    _, state = find_checkpoint(run, file, which)
    predictor = restore_predictor(state, device)
    canvas, channels = predictor.preprocessing.evaluation, predictor.preprocessing.shape.channels
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if form == "csv":
        writer.writerow(["path", "class", "probability", *predictor.classes])
    failed = 0
    for start in range(0, len(files), batch_size):
        names, images = [], []
        for name in files[start : start + batch_size]:
            try:
                image, _ = place(decode(name, channels), canvas)
            except ConfigError as error:
                failed += 1
                sys.stderr.write(f"{error.diagnostics[0].message}\n")
                continue
            names.append(name)
            images.append(image)
        if not images:
            continue
        for name, row in zip(names, predictor.probabilities(torch.stack(images)).tolist(), strict=True):
            best = max(range(len(row)), key=row.__getitem__)
            if form == "csv":
                writer.writerow([name, predictor.classes[best], f"{row[best]:.6f}", *(f"{p:.6f}" for p in row)])
                continue
            probabilities = dict(zip(predictor.classes, row, strict=True))
            record = {"path": str(name), "class": predictor.classes[best], "probability": row[best],
                      "probabilities": probabilities}  # fmt: skip
            sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
    sys.stdout.flush()
    return 1 if failed else 0


def image_files(inputs: list[Path]) -> Iterator[Path]:
    """The given files, and every image file below the given folders, in order of their names."""
    for path in inputs:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            if not found:
                raise RunError(f"there is no image in {path}")
            yield from found
        elif path.exists():
            yield path
        else:
            raise RunError(f"there is no file {path}")
