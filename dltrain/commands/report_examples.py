"""What `report` shows of examples: the data that was measured, what networks make of it, and training images.

a run or a folder of them -> its data, where it still is what was measured -> faces of its examples
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dltrain.commands.compare_forms import Side
from dltrain.commands.evaluate import digest_of_keys, find_checkpoint
from dltrain.commands.resuming import where_it_lies_now
from dltrain.commands.several import together_digest
from dltrain.config import ConfigError
from dltrain.data.types import Source, Splits
from dltrain.engine.builder import build
from dltrain.engine.predictor import Predictor, restore_predictor
from dltrain.errors import DltrainError
from dltrain.evidence.report.faces import SIDE, Faces, Redone
from dltrain.experiment.experiment import Experiment
from dltrain.runs.run import Run
from dltrain.tasks.impl.objectives import answer_of

AUGMENTED, SAMPLES = 24, 24
"""Images that are shown."""


@dataclass(frozen=True)
class Opened:
    """A run by its best checkpoint. splits: its data; None where that cannot be read, which `missing` tells."""

    run: Run
    state: dict[str, Any]
    file: Path
    experiment: Experiment
    splits: Splits | None
    missing: str

    def predictor(self, device: str) -> Predictor:
        """Its network."""
        return restore_predictor(self.state, device, self.file)


def opened(path: str) -> Opened:
    """The run or checkpoint at a path. Raises RunError when there is none."""
    run, given = Run.open(path)
    file, state = find_checkpoint(run, given, "best")
    experiment = where_it_lies_now(run, Experiment.parse(state["about"]["experiment"], str(file)))
    try:
        splits = experiment.load_data(like=state["about"]["fingerprint"])
    except ConfigError as error:
        missing = f"The data cannot be read, so no example is shown: {first_line(error)}"
        return Opened(run, state, file, experiment, None, missing)
    return Opened(run, state, file, experiment, splits, "")


def first_line(error: DltrainError) -> str:
    """Of a message."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def faces_of(
    runs: Sequence[Opened], side: Side, split: str, device: str, missing: list[str], *, in_turn: bool
) -> Faces:  # fmt: skip
    """The examples of a side's table. runs: those that answer. in_turn: each its own split, one after another; else
    all of them the same examples together. What cannot be shown is added to `missing`."""
    asked = runs if in_turn else runs[:1]
    found = [getattr(each.splits, split) for each in asked if each.splits is not None]
    sources: list[Source] = [source for source in found if source is not None]
    if len(sources) < len(asked):
        return Faces(side.table, None)
    digests = [digest_of_keys(source) for source in sources]
    source = sources[0].joined(sources[1:]) if len(sources) > 1 else sources[0]
    if len(source) != len(side.table) or (together_digest(digests) if in_turn else digests[0]) != side.digest:
        missing.append("The data is not what was measured, so no example is shown.")
        return Faces(side.table, None)
    return Faces(side.table, source, _redone(runs, sources, device, in_turn=in_turn))


def _redone(runs: Sequence[Opened], sources: Sequence[Source], device: str, *, in_turn: bool) -> Redone | None:
    """What networks make of examples, as pictures; None where they are rows, or something else is learned."""
    first = runs[0].predictor(device)
    if not first.task.learns_inputs or sources[0].pictures(np.arange(1), SIDE) is None:
        return None
    predictors = [first, *(each.predictor(device) for each in runs[1:])]
    ends = np.cumsum([len(source) for source in sources])

    def together(places: np.ndarray) -> Sequence[np.ndarray]:
        outputs = [answer_of(each.outputs(sources[0].load(places, each.layout)[0])) for each in predictors]
        return pixels_of(first, first.task.combine(outputs) if len(outputs) > 1 else outputs[0])

    def alone(place: int) -> np.ndarray:
        turn = int(np.searchsorted(ends, place, side="right"))
        predictor, source = predictors[turn], sources[turn]
        images, _ = source.load(np.array([place - ends[turn] + len(source)]), predictor.layout)
        return pixels_of(predictor, answer_of(predictor.outputs(images)))[0]

    return (lambda places: [alone(place) for place in places.tolist()]) if in_turn else together


def pixels_of(predictor: Predictor, outputs: torch.Tensor) -> Sequence[np.ndarray]:
    """What a network puts out, as pictures (h, w, C) uint8."""
    return list(predictor.pixels(outputs).permute(0, 2, 3, 1).numpy())


def samples(run: Opened, device: str) -> Sequence[np.ndarray]:
    """What a network that makes pictures makes of nothing, where it can."""
    predictor = run.predictor(device)
    sample = getattr(predictor.model, "samples", None)
    if sample is None:
        return []
    with torch.no_grad(), predictor.autocast():
        return pixels_of(predictor, answer_of(sample(SAMPLES)))


def augmented(run: Opened, missing: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images of the first batch, as they lie there and as the network got them."""
    splits = run.splits
    if splits is None or splits.train.pictures(np.arange(1), SIDE) is None:
        return []
    try:
        trainer = build(run.experiment, "cpu", run.state, splits=splits)
    except DltrainError as error:
        missing.append(f"The training images are not shown: {first_line(error)}")
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
