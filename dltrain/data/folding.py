"""Folds: a part of a data set divided into equal parts by content, each of which is the validation split once.

Like the rule of `splitting`, it does not know the seed: examples go, in the order of their content hashes, to the fold
that has the fewest of their class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dltrain.config import ConfigError, Diagnostic


def folds(strata: np.ndarray, keys: np.ndarray, sets: np.ndarray, count: int, names: Sequence[str] = ()) -> np.ndarray:
    """(N,) int64: the fold of every example, from 0.

    strata: (N,) int64, its class, or 0 of all. keys: (N,), what its content is known by. sets: (N,), equal for
    examples that stay together. names: of the classes. Large sets are placed first, each in the fold that has the
    smallest share of their classes; then the single examples even it out. Without sets of several, the folds have
    equally many examples of each class, within one.
    Raises ConfigError when a class has no example in a fold.
    """
    _, which, sizes = np.unique(sets, return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    order = np.argsort(keys, kind="stable")
    first = np.empty(len(sizes), np.int64)
    first[which[order[::-1]]] = np.arange(len(keys))[::-1]  # the place of its lowest key in that order
    members = np.argsort(which, kind="stable")
    ends = np.cumsum(sizes)
    of_class = np.bincount(strata)
    had = np.zeros((count, len(of_class)), np.int64)  # examples of each fold and class
    found = np.empty(len(keys), np.int64)
    for one in np.lexsort((first, -sizes)).tolist():
        rows = members[ends[one] - sizes[one] : ends[one]]
        labels, each = np.unique(strata[rows], return_counts=True)
        share = (had[:, labels] * (each / of_class[labels])).sum(1)
        fold = int(np.lexsort((had.sum(1), share))[0])
        found[rows] = fold
        had[fold, labels] += each
    if not had.all():
        label = int(np.flatnonzero(~had.all(0))[0])
        raise _too_few(names[label] if len(names) else "", strata, which, label, count)
    return found


def _too_few(name: str, strata: np.ndarray, which: np.ndarray, label: int, count: int) -> ConfigError:
    examples, sets = int((strata == label).sum()), len(np.unique(which[strata == label]))
    what = f"class `{name}` has" if name else "there are"
    message = f"one of {count} folds would have no example{f' of class `{name}`' if name else ''}"
    together = f" in {sets:,} groups or copies that stay together" if sets < examples else ""
    return ConfigError([Diagnostic(message, notes=(f"{what} {examples:,} examples{together}",), key="fold")])
