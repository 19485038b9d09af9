"""`report`: one HTML file of what runs did and what the first of them answers.

runs -> tables of examples, those that `eval` kept or measured now; epochs; data; plan; environment -> the page
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dltrain.commands.compare import compared
from dltrain.commands.compare_forms import Compared, setting
from dltrain.commands.evaluate import digest_of_keys, find_checkpoint
from dltrain.commands.resuming import where_it_lies_now
from dltrain.commands.several import each_run, several_at
from dltrain.config import ConfigError
from dltrain.console.display import Display
from dltrain.console.streams import print_result
from dltrain.data.types import Source, Splits
from dltrain.engine.builder import build
from dltrain.engine.predictor import Predictor, restore_predictor
from dltrain.errors import DltrainError
from dltrain.evidence.examples import find_table
from dltrain.evidence.report.curves import SHARE, Training, shares_of
from dltrain.evidence.report.faces import SIDE, Faces
from dltrain.evidence.report.page import Story, page
from dltrain.experiment.experiment import Experiment
from dltrain.planning import text
from dltrain.planning.plan import plan
from dltrain.runs.checkpoints import write_atomically
from dltrain.runs.recorders.csv import read_table
from dltrain.runs.run import Run, unwritable
from dltrain.tasks.impl.objectives import answer_of

PAGE = "report.html"
SPLITS = ("validation", "test", "train")
"""In the order in which they are chosen: the test split is not looked into unless it is asked for."""
AUGMENTED, SAMPLES = 24, 24
"""Images that are shown."""


@dataclass(frozen=True)
class _First:
    """The run whose answers are shown. splits: its data; None where that cannot be read, which `missing` tells."""

    run: Run
    state: dict[str, Any]
    file: Path
    experiment: Experiment
    splits: Splits | None
    missing: list[str]


def report_runs(paths: Sequence[str], split: str | None, output: Path | None, device: str, display: Display) -> Path:
    """Write the page of the runs or checkpoints at `paths`, and print its path. A folder of several trainings stands
    for its runs.

    split: what the answers are measured on; None: validation, where there is one. output: the file; None: `report.html`
    in the first run or folder. Raises RunError like `compared`, and where the file cannot be written.
    """
    runs = each_run(paths)
    first = _opened(runs[0])
    found = compared(runs, split or _usual_split(first), device, display)
    target = output or (first.run.path if several_at(paths[0]) is None else Path(paths[0])) / PAGE
    story = _story(first, found, device)
    try:
        write_atomically(target, page(story).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise unwritable(error, target) from None
    print_result(str(target))
    return target


def _opened(path: str) -> _First:
    run, given = Run.open(path)
    file, state = find_checkpoint(run, given, "best")
    experiment = where_it_lies_now(run, Experiment.parse(state["about"]["experiment"], str(file)))
    try:
        return _First(run, state, file, experiment, experiment.load_data(like=state["about"]["fingerprint"]), [])
    except ConfigError as error:
        return _First(
            run, state, file, experiment, None, [f"The data cannot be read, so no example is shown: {_line(error)}"]
        )


def _usual_split(first: _First) -> str:
    """The first one that there is."""
    splits = first.splits
    if splits is None:
        kept = [name for name in SPLITS if find_table(first.run.path / "eval" / name) is not None]
        return kept[0] if kept else SPLITS[0]
    return next(name for name in SPLITS if getattr(splits, name) is not None)


def _story(first: _First, found: Compared, device: str) -> Story:
    side, missing = found.sides[0], list(first.missing)
    source = _source(first, found, missing)
    predictor = restore_predictor(first.state, device, first.file) if source is not None else None
    redone = None
    if predictor is not None and source is not None and predictor.task.learns_inputs:
        redone = _redone(predictor, source)
    pairs, sketch = _augmented(first, missing), _plan(first.experiment, missing)
    about = first.run.read_json("environment.json")
    trainings = [
        _training(Run.open(each.path)[0], each.letter if len(found.sides) > 1 else "the run", each.experiment)
        for each in found.sides
    ]
    letters = {each.letter: training.name for each, training in zip(found.sides, trainings, strict=True)}
    return Story(
        title=f"{first.experiment.name}: {side.path}", split=found.split, words=side.words, metrics=side.metrics,
        trainings=trainings, scores={letters[letter]: scores for letter, scores in found.scores.items()},
        faces=Faces(side.table, source, redone), comparisons=[each.sentence(side) for each in found.against],
        settings={key: [*map(setting, values)] for key, values in found.settings.items()},
        augmented=pairs, samples=_samples(predictor) if redone is not None and predictor is not None else [],
        plan=sketch, experiment=first.experiment.dump(), environment=_environment(about),
        decisions=[(name, setting(each.get("value")), str(each.get("reason", "")))
                   for name, each in about.get("decisions", {}).items()],
        repeat=_repeat(first, found), missing=missing,
    )  # fmt: skip


def _source(first: _First, found: Compared, missing: list[str]) -> Source | None:
    """The examples of the table, where they still are what was measured."""
    source: Source | None = getattr(first.splits, found.split) if first.splits is not None else None
    if source is None:
        return None
    if len(source) != len(found.sides[0].table) or digest_of_keys(source) != found.sides[0].digest:
        missing.append("The data is not what was measured, so no example is shown.")
        return None
    return source


def _training(run: Run, name: str, experiment: Experiment) -> Training:
    result = run.read_json("result.json")
    try:
        rows = read_table(run.path)
    except OSError:  # a checkpoint may lie anywhere
        rows = []
    seconds, best = result.get("seconds"), result.get("best_epoch")
    return Training(
        name, str(run.path), rows, shares_of(result), seconds if isinstance(seconds, (int, float)) else None,
        best if isinstance(best, int) else None, experiment.training.smoothing or SHARE,
    )  # fmt: skip


def _redone(predictor: Predictor, source: Source) -> Any:
    """What the network makes of examples, as pictures; None where they are rows."""
    if source.pictures(np.arange(1), SIDE) is None:
        return None

    def redone(places: np.ndarray) -> Sequence[np.ndarray]:
        images, _ = source.load(places, predictor.layout)
        return _seen(predictor, answer_of(predictor.outputs(images)))

    return redone


def _samples(predictor: Predictor) -> Sequence[np.ndarray]:
    """What the network makes of nothing, where it can."""
    sample = getattr(predictor.model, "samples", None)
    if sample is None:
        return []
    with torch.no_grad(), predictor.autocast():
        return _seen(predictor, answer_of(sample(SAMPLES)))


def _seen(predictor: Predictor, outputs: torch.Tensor) -> Sequence[np.ndarray]:
    return list(predictor.pixels(outputs).permute(0, 2, 3, 1).numpy())


def _augmented(first: _First, missing: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images of the first batch, as they lie there and as the network got them."""
    splits = first.splits
    if splits is None or splits.train.pictures(np.arange(1), SIDE) is None:
        return []
    try:
        trainer = build(first.experiment, "cpu", first.state, splits=splits)
    except DltrainError as error:
        missing.append(f"The training images are not shown: {_line(error)}")
        return []
    parts = trainer.parts
    batches = parts.train.batches(0)
    try:
        batch = next(batches)
        inputs, _ = parts.pipeline.train(batch, 0)
        pixels = parts.pipeline.scaling.invert(inputs[:AUGMENTED].float()).clamp(0, 255).round().byte()
        after = list(pixels.permute(0, 2, 3, 1).cpu().numpy())
        before = splits.train.pictures(batch.indices[:AUGMENTED].cpu().numpy(), SIDE) or []
        return list(zip(before, after, strict=True))
    finally:
        batches.close()
        trainer.close()


def _plan(experiment: Experiment, missing: list[str]) -> str:
    try:
        return text.render(plan(experiment, "cpu"), 100)
    except DltrainError as error:
        missing.append(f"The plan is not shown: {_line(error)}")
        return ""


def _environment(about: dict[str, Any]) -> dict[str, str]:
    """environment.json by name, without the decisions."""
    command = about.get("command")
    found = {
        "began": about.get("started"), "command": shlex.join(map(str, command)) if isinstance(command, list) else None,
        "Python": about.get("python"), "platform": about.get("platform"), **about.get("packages", {}),
        "git commit": about.get("git_commit"), "seed": about.get("seed"), "data": about.get("data_fingerprint"),
        "plug-ins": ", ".join(about.get("plugins") or {}) or None,
    }  # fmt: skip
    return {name: str(value) for name, value in found.items() if value is not None}


def _repeat(first: _First, found: Compared) -> list[str]:
    paths = [shlex.quote(side.path) for side in found.sides]
    return [
        f"dltrain fit {shlex.quote(str(first.run.path / 'experiment.yaml'))}",
        f"dltrain eval {paths[0]} --split {found.split}",
        f"dltrain report {' '.join(paths)} --split {found.split}",
    ]


def _line(error: DltrainError) -> str:
    """The first line of a message."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
