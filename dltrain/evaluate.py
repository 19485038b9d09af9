"""`eval`: measure a checkpoint on a split; the checkpoint and the data are all it needs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dltrain.builder import Predictor, restore_predictor, split_of
from dltrain.console import Display, stdout
from dltrain.data.base import Source, Splits
from dltrain.data.loaders import choose_loader, choose_workers, make_loader
from dltrain.experiment import Experiment
from dltrain.metrics import ClassificationReport
from dltrain.runs import Run, RunError
from dltrain.tasks import Classification
from dltrain.trainer import evaluate


def evaluate_run(
    path: str, split: str, which: str, device: str, display: Display, *, overrides: Sequence[str] = (),
    as_json: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Measure the run or checkpoint at `path` on `split`, print the result and keep it in the run.

    overrides: of `data` alone, for data that has moved, or other data with the same classes.
    Raises RunError when there is no such run, checkpoint or split, ConfigError when the data cannot be read.
    """
    run, given = Run.open(path)
    file, state = find_checkpoint(run, given, which)
    predictor = restore_predictor(state, device)
    experiment = _with_data(predictor.experiment, overrides)
    splits = experiment.data.load()
    _require_classes(splits.classes, predictor.classes)
    source = _split(splits, split, experiment.data.name)
    if splits.fingerprint != state["about"]["fingerprint"]:
        display.warning("this is not the data of the training: some of it may have been trained on")
    started = time.perf_counter()
    report = measure(predictor, source, experiment)
    result = {"split": split, "checkpoint": file.name, "step": state["step"], **report.to_dict(predictor.classes)}
    result["seconds"] = round(time.perf_counter() - started, 3)
    result["data_fingerprint"] = splits.fingerprint
    if (run.path / "experiment.yaml").is_file():  # a checkpoint may lie anywhere
        _record(run, split, {**result, "when": time.strftime("%Y-%m-%dT%H:%M:%S%z")}, display)
    stdout(json.dumps(result, ensure_ascii=False) if as_json else f"{file}, {split}\n{report.table(predictor.classes)}")
    return result


def measure(predictor: Predictor, source: Source, experiment: Experiment) -> ClassificationReport:
    """The report on every example of a split, in batches of the training's size."""
    canvas = predictor.preprocessing.evaluation
    kind, _ = choose_loader(source, canvas, predictor.device, experiment.data.loader)
    workers = choose_workers(source, experiment.data.workers)[0] if kind == "streaming" else 0
    batch_size = min(experiment.training.batch_size, len(source))
    loader = make_loader(kind, source, canvas, batch_size=batch_size, seed=0, device=predictor.device, workers=workers)
    task = Classification(experiment.loss.evaluation(), predictor.classes, predictor.device)
    try:
        return evaluate(predictor.model, predictor.model, loader, predictor.pipeline, task, predictor.autocast)
    finally:
        loader.close()


def find_checkpoint(run: Run, file: Path | None, which: str) -> tuple[Path, dict[str, Any]]:
    """The given checkpoint file, or the run's `best` or `last` one. Raises RunError."""
    if file is not None:
        return run.checkpoint_at(file)
    if which == "best" and not run.best.exists() and run.last.exists():
        return run.checkpoint("last")  # stopped before the first evaluation
    return run.checkpoint(which)


def _with_data(experiment: Experiment, overrides: Sequence[str]) -> Experiment:
    for text in overrides:
        if text.partition("=")[0].split(".")[0] != "data":
            raise RunError(f"a checkpoint brings its own settings, all but `data`: `{text}` cannot be given here")
    return Experiment.parse(experiment.dump(), "checkpoint", overrides) if overrides else experiment


def _require_classes(found: list[str], trained: list[str]) -> None:
    if found == trained:
        return
    unknown, absent = [c for c in found if c not in trained], [c for c in trained if c not in found]
    parts = [f"{what}: {_listed(names)}" for what, names in (("new", unknown), ("missing", absent)) if names]
    raise RunError(f"the data's classes are not those of the training ({'; '.join(parts) or 'their order differs'})")


def _listed(names: list[str], most: int = 8) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _split(splits: Splits, name: str, data: str) -> Source:
    source = split_of(splits, name)
    if source is None:
        others = [other for other in ("validation", "train") if split_of(splits, other) is not None]
        raise RunError(f"data `{data}` has no {name} split; use --split {others[0]}")
    return source


def _record(run: Run, split: str, content: dict[str, Any], display: Display) -> None:
    try:
        run.write_json(f"eval/{split}.json", content)
    except OSError as error:  # a run of somebody else, or a full disk: the numbers are printed all the same
        display.warning(f"the result could not be recorded in {run.path}: {error.strerror}")
