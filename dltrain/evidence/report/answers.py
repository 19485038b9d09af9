"""What there is to see of the answers to a split, by what a task says of each example: a function for each kind."""

from __future__ import annotations

from functools import singledispatch

import numpy as np

from dltrain.evidence.figures import SMALL, histogram
from dltrain.evidence.report import confusion, questions, values
from dltrain.evidence.report.blocks import Block, Drawn, Section, Words
from dltrain.evidence.report.faces import Faces
from dltrain.evidence.report.numbers import Rates
from dltrain.tasks.outcomes import BinaryOutcomes, ClassOutcomes, InputOutcomes, LabelOutcomes, NumberOutcomes, Outcomes

SHOWN = 24
"""Examples of a list."""


@singledispatch
def answered(outcomes: Outcomes, faces: Faces) -> list[Section]:
    """The sections of the answers; none for a task that says nothing of single examples but their losses."""
    return []


@answered.register
def _(outcomes: ClassOutcomes, faces: Faces) -> list[Section]:
    truth, curves = _one_hot(outcomes)
    return [
        *_of_classes(outcomes, faces, truth, curves),
        questions.thresholds(outcomes.names, curves),
        questions.calibration(outcomes.sureness, outcomes.right, "the probabilities of the answers"),
    ]


@answered.register
def _(outcomes: BinaryOutcomes, faces: Faces) -> list[Section]:
    truth, curves = _one_hot(outcomes)
    yes, name = outcomes.probabilities[:, 1].astype(np.float64), outcomes.names[1]
    return [
        *_of_classes(outcomes, faces, truth, curves),
        questions.thresholds([name], curves[1:]),
        questions.calibration(yes, truth[:, 1], f"the probabilities of `{name}`"),
    ]


@answered.register
def _(outcomes: LabelOutcomes, faces: Faces) -> list[Section]:
    curves = questions.all_rates(outcomes.probabilities, outcomes.target)
    return [
        questions.table(outcomes.names, outcomes.target, outcomes.prediction, curves),
        questions.thresholds(outcomes.names, curves),
        questions.calibration(
            outcomes.probabilities.ravel().astype(np.float64), outcomes.target.ravel(), "the labels' probabilities"
        ),
    ]


@answered.register
def _(outcomes: NumberOutcomes, faces: Faces) -> list[Section]:
    return values.answers(outcomes, faces)


@answered.register
def _(outcomes: InputOutcomes, faces: Faces) -> list[Section]:
    figure = histogram("Error of each example", "How large the errors are.", "mse", outcomes.mse.tolist(), SMALL)
    order = np.argsort(outcomes.mse, kind="stable")
    even = order[np.linspace(0, len(order) - 1, min(SHOWN, len(order))).astype(np.int64)]
    blocks: list[Block] = [Drawn(figure)]
    if faces.redone is not None:
        blocks.append(Words("Inputs, and below each what the network makes of it: from the best one to the worst."))
    blocks.append(faces.shown("Inputs and outputs, the best first", dict.fromkeys(even.tolist())))
    return [Section("answers", "Inputs and outputs", blocks)]


def worst(faces: Faces) -> Section:
    """The mistakes with the greatest losses; where answers are not just right or wrong, the greatest losses."""
    right = faces.table.outcomes.right
    losses = np.where(np.isnan(faces.table.losses), np.inf, faces.table.losses)
    order = np.lexsort((np.arange(len(losses)), -losses))
    chosen = order if right is None else order[~right[order]]
    title = "The greatest losses" if right is None else "The worst mistakes"
    if not len(chosen):
        return Section("worst", title, [Words("There is no mistake.")])
    return Section("worst", title, [faces.shown(title, chosen[:SHOWN])])


def least_sure(faces: Faces) -> Section:
    """The examples of whose answers the network is the least sure."""
    sureness = faces.table.outcomes.sureness
    if sureness is None:
        return Section("unsure", "The least sure", [])
    order = np.lexsort((np.arange(len(sureness)), sureness))
    return Section("unsure", "The least sure", [faces.shown("The least sure", order[:SHOWN])])


def _one_hot(outcomes: ClassOutcomes) -> tuple[np.ndarray, list[Rates | None]]:
    truth = outcomes.target[:, None] == np.arange(len(outcomes.names))
    return truth, questions.all_rates(outcomes.probabilities, truth)


def _of_classes(outcomes: ClassOutcomes, faces: Faces, truth: np.ndarray, curves: list[Rates | None]) -> list[Section]:
    answers = outcomes.prediction[:, None] == np.arange(len(outcomes.names))
    return [confusion.matrix(outcomes, faces), questions.table(outcomes.names, truth, answers, curves)]
