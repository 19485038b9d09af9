"""`eval`: measure a checkpoint on a split; the checkpoint and the data are all it needs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from dltrain.builder import restore_predictor, split_of
from dltrain.console import stdout
from dltrain.data.loaders import choose_loader, choose_workers, make_loader
from dltrain.runs import Run, RunError
from dltrain.tasks import Classification
from dltrain.trainer import evaluate


def evaluate_run(path: str, split: str, which: str, device: str, *, as_json: bool = False) -> dict[str, Any]:
    """Measure the run or checkpoint at `path` on `split`, print the result and keep it in the run.

    Raises RunError when there is no such run, checkpoint or split.
    """
    run, file = Run.open(path)
    file, state = find_checkpoint(run, file, which)
    predictor = restore_predictor(state, device)
    experiment = predictor.experiment
    splits = experiment.data.load()
    if splits.classes != predictor.classes:
        raise RunError(f"the data's classes {splits.classes} are not those of the checkpoint, {predictor.classes}")
    source = split_of(splits, split)
    if source is None:
        hint = "; use --split validation" if split == "test" and splits.validation is not None else ""
        raise RunError(f"data `{experiment.data.name}` has no {split} split{hint}")
    canvas = predictor.preprocessing.evaluation
    kind, _ = choose_loader(source, canvas, predictor.device, experiment.data.loader)
    workers = choose_workers(source, experiment.data.workers)[0] if kind == "streaming" else 0
    batch_size = min(experiment.training.batch_size, len(source))
    loader = make_loader(kind, source, canvas, batch_size=batch_size, seed=0, device=predictor.device, workers=workers)
    started = time.perf_counter()
    task = Classification(experiment.loss, predictor.classes, predictor.device)
    try:
        report = evaluate(predictor.model, predictor.model, loader, predictor.pipeline, task, predictor.autocast)
    finally:
        loader.close()
    seconds = time.perf_counter() - started
    result = {"split": split, "checkpoint": file.name, "step": state["step"], **report.to_dict(predictor.classes)}
    result["seconds"] = round(seconds, 3)
    result["data_fingerprint"] = splits.fingerprint
    run.write_json(f"eval/{split}.json", {**result, "when": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
    stdout(json.dumps(result, ensure_ascii=False) if as_json else f"{file}, {split}\n{report.table(predictor.classes)}")
    return result


def find_checkpoint(run: Run, file: Path | None, which: str) -> tuple[Path, dict[str, Any]]:
    """The given checkpoint file, or the run's `best` or `last` one. Raises RunError."""
    if file is not None:
        return run.checkpoint_at(file)
    if which == "best" and not run.best.exists() and run.last.exists():
        return run.checkpoint("last")  # stopped before the first evaluation
    return run.checkpoint(which)
