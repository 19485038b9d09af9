"""`eval --calibrate` and `predict --abstain`: what the validation split says of how sure a network may be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial

import torch
from torch import Tensor

from dltrain.commands.evaluate import (
    digest_of_keys,
    find_checkpoint,
    knows,
    other_division,
    require_alike,
    together_seen,
    with_data,
)
from dltrain.commands.resuming import where_it_lies_now
from dltrain.console.display import Display
from dltrain.data.evaluation import Views
from dltrain.data.types import Source
from dltrain.engine.calibrating import TOLERANCE, ConformalSets, fit_temperature, true_probabilities
from dltrain.engine.predictor import Predictor, restore_predictor
from dltrain.errors import RunError
from dltrain.experiment.experiment import Experiment
from dltrain.runs.calibrations import Calibration, Measures, write_calibration
from dltrain.runs.checkpoints import digest_of
from dltrain.runs.run import Run
from dltrain.tasks.impl.base import BuiltTask
from dltrain.tasks.impl.objectives import answer_of


def calibrate_runs(
    paths: Sequence[str], which: str, device: str, display: Display, *, overrides: Sequence[str] = (),
    views: Views | None = None, share: float | None = None,
) -> list[Calibration]:  # fmt: skip
    """Fit a temperature to the validation split of each run or checkpoint at `paths`, and keep it beside its file.

    overrides: of `data` alone, for data that has moved. Raises RunError for a task without probabilities, or where
    there is no validation split or no temperature fits; ConfigError when the data cannot be read.
    """
    found: list[Calibration] = []
    for path in paths:
        run, given = Run.open(path)
        file, state = find_checkpoint(run, given, which)
        predictor = restore_predictor(state, device, file)
        predictor.look(views, share)
        predictor.require_probabilities()
        experiment = with_data(where_it_lies_now(run, predictor.experiment), overrides)
        mark = state["about"]["fingerprint"]
        source = validation_of(experiment, predictor, mark)
        outputs, targets = _answers(predictor, source, experiment)
        temperature = fit_temperature(partial(_likelihood, predictor.task, targets), outputs)
        seen = predictor.evaluation
        before, after = (_measures(predictor, outputs / each, targets) for each in (1.0, temperature))
        calibration = Calibration(
            temperature=temperature, checkpoint=digest_of(file), split="validation", examples=len(outputs),
            examples_digest=digest_of_keys(source), fingerprint=mark, views=seen.views, share=float(seen.share),
            tolerance=TOLERANCE, bins=BINS, before=before, after=after,
        )  # fmt: skip
        display.line(f"{write_calibration(calibration, file)}: {calibration.told()}")
        found.append(calibration)
    return found


BINS = 15
"""Of the expected calibration error, as in every report."""


def conformal_sets(
    predictors: Sequence[Predictor], experiment: Experiment, marks: Sequence[str], alpha: Fraction
) -> ConformalSets:
    """What is answered in sets of classes, by the networks together as they are now asked, from their validation split.

    experiment: of the data. marks: the fingerprints of the data of each. Raises RunError for another task, without a
    validation split, or with too few examples in it.
    """
    first = predictors[0]
    if not first.task.classes:
        name = first.experiment.resolved_task.name
        raise RunError(f"--abstain is of tasks that answer with one of several classes, and the task is `{name}`")
    if len({*marks}) > 1 or any(other_division(first.experiment.data, each.experiment.data) for each in predictors):
        raise RunError("the runs were trained on different data, or other parts of it: there is no validation split "
                       "that none of them has seen")  # fmt: skip
    source = validation_of(experiment, first, marks[0])
    true: list[float] = []
    for outputs, inputs, targets in _seen(predictors, source, experiment):
        together = first.task.combine(outputs) if len(outputs) > 1 else outputs[0]
        true += true_probabilities(class_probabilities(first.task, together, inputs), targets)
    return ConformalSets.of(true, alpha)


def class_probabilities(task: BuiltTask, outputs: Tensor, inputs: Tensor) -> Tensor:
    """Of each class (B, K), as `answers` writes them. inputs: (B, ...), those that were answered to."""
    return task.said(outputs if outputs.dtype == torch.float64 else outputs.float(), inputs)["probabilities"]


def validation_of(experiment: Experiment, predictor: Predictor, mark: str) -> Source:
    """The validation split of the training. mark: the fingerprint of its data. Raises RunError where there is none, or
    the data has changed, ConfigError when it cannot be read."""
    splits = experiment.load_data(like=mark)
    if splits.validation is None:
        raise RunError(f"data `{experiment.data.name}` has no validation split, and on no other may this be measured: "
                       "the network has seen `train`, and `test` is for what is reported")  # fmt: skip
    if not knows(experiment, splits, mark):
        raise RunError("this is not the data of the training: what is measured of its validation split says nothing of "
                       "the network")  # fmt: skip
    require_alike(splits.target, predictor.target)
    found: Source = splits.validation
    return found


def _seen(
    predictors: Sequence[Predictor], source: Source, experiment: Experiment
) -> Iterator[tuple[list[Tensor], Tensor, Tensor]]:
    """Batches: what each network answers (B, ...), what the first was given, and the targets (B, ...)."""
    with contextlib.closing(together_seen(predictors, source, experiment)) as seen:
        for batches in seen:
            batch, valid = batches[0]
            outputs = [
                answer_of(predictor.outputs(each.inputs, count))[:count]
                for predictor, (each, count) in zip(predictors, batches, strict=True)
            ]
            yield outputs, predictors[0].inputs(batch.inputs)[:valid], batch.targets[:valid]


def _answers(predictor: Predictor, source: Source, experiment: Experiment) -> tuple[Tensor, Tensor]:
    """Outputs (N, ...) float64 and targets (N, ...) of a split, on the CPU."""
    found = [
        (outputs[0].cpu().double(), targets.cpu()) for outputs, _, targets in _seen([predictor], source, experiment)
    ]
    outputs, targets = zip(*found, strict=True)
    return torch.cat(outputs), torch.cat(targets)


def _likelihood(task: BuiltTask, targets: Tensor, outputs: Tensor) -> Tensor:
    return task.likelihood_losses(outputs, targets)


def _measures(predictor: Predictor, outputs: Tensor, targets: Tensor) -> Measures:
    experiment = predictor.experiment
    task = experiment.resolved_task.build(experiment.loss, predictor.target, torch.device("cpu"))
    report, losses = task.report(), task.likelihood_losses(outputs, targets)
    report.update(outputs, targets, losses)
    told = report.to_dict()
    assert told["ece_bins"] == BINS
    return Measures(nll=float(losses.mean()), ece=told["ece"])
