"""What the answers to a split say beyond its metrics: per class, at every threshold, and whether they are as sure as
they are right. numpy; no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dltrain.tasks.measures import Ranking

BINS = 15
"""Of a reliability diagram, as in Guo et al. 2017 (https://arxiv.org/abs/1706.04599)."""


@dataclass(frozen=True)
class ByClass:
    """Of each of K classes. support: (K,) how many examples have it. precision, recall, f1: (K,), 0 where nothing is
    counted, as in scikit-learn. right, answered: (K,) how many of it were found, and how often it was the answer."""

    support: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    right: np.ndarray
    answered: np.ndarray


def confusion(target: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """(K, K) int64: how often each class (row) was taken for each (column). target, prediction: (N,) int64."""
    counts: np.ndarray = np.bincount(target * classes + prediction, minlength=classes**2).reshape(classes, classes)
    return counts


def by_class(truth: np.ndarray, answers: np.ndarray) -> ByClass:
    """truth, answers: (N, K) bool, to each of K questions."""
    right, answered, support = (truth & answers).sum(0), answers.sum(0), truth.sum(0)
    return ByClass(
        support, _share(right, answered), _share(right, support), _share(2 * right, answered + support), right, answered
    )


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
    return found


@dataclass(frozen=True)
class Rates:
    """What a score says at each threshold, the highest first. false, found: (T,) shares of the false that are answered
    yes, and of the true (recall), from 0 to 1. precision: (T,), 1 before the first. roc_auc, average_precision: areas;
    not a number where there are not both kinds."""

    false: np.ndarray
    found: np.ndarray
    precision: np.ndarray
    roc_auc: float
    average_precision: float


def rates(scores: np.ndarray, truth: np.ndarray) -> Rates:
    """scores: (N,). truth: (N,) bool. Equal scores are one threshold."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.r_[scores[order][1:] != scores[order][:-1], True])
    yes, answered = truth[order].cumsum()[ends], ends + 1.0
    positive, negative = int(truth.sum()), int((~truth).sum())
    one, ranking = np.ones((1, len(scores))), Ranking(scores, truth)
    return Rates(
        np.r_[0, (answered - yes) / max(negative, 1)], np.r_[0, yes / max(positive, 1)], np.r_[1, yes / answered],
        float(ranking.roc_auc(one)[0]), float(ranking.average_precision(one)[0]),
    )  # fmt: skip


@dataclass(frozen=True)
class Reliability:
    """Of bins of one width. sure: (B,) the mean probability. right: (B,) how many answers are right. total: (B,) how
    many there are, 0 of a bin that is empty. error: the expected calibration error, the mean of |share right - sure|
    over all answers."""

    sure: np.ndarray
    right: np.ndarray
    total: np.ndarray
    error: float


def reliability(sureness: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability:
    """sureness: (N,) from 0 to 1. right: (N,) bool. A value at an edge is in the lower bin."""
    place = np.clip(np.ceil(sureness * bins).astype(np.int64) - 1, 0, bins - 1)
    total, hits = np.bincount(place, minlength=bins), np.bincount(place, right, minlength=bins)
    sums = np.bincount(place, sureness, minlength=bins)
    error = float(np.abs(hits - sums).sum() / max(len(sureness), 1))
    return Reliability(sums / np.maximum(total, 1), hits.astype(np.int64), total, error)
