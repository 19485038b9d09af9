"""Which examples are for testing, validation and training; and the fingerprint of a data set.

The rule: of every class, the examples with the lowest content hash; copies of an image go with the lowest of theirs.
Where targets are no classes: of all examples.
It does not know the seed, and as a data set grows a fraction moves at most boundary examples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction as Exact
from pathlib import Path

import numpy as np

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.copies.copies import Examples, across, find, left_out, within
from dltrain.data.copies.likeness import Sets
from dltrain.data.folding import folds
from dltrain.data.targets import TargetSpec
from dltrain.data.types import Copies, RawDataset, Source, Splits
from dltrain.errors import Note

VERSION = "2-"
"""What fingerprints begin with. Those of earlier versions are plain hexadecimal digits: folders were divided by the
hashes of paths and known by sizes, and copies were not looked for."""


def divide(
    parts: RawDataset, validation: float | int, copies: Copies = "together", *, known: bool = False,
    contradict: bool = False, like: str | None = None, fold: tuple[int, int] | None = None,
) -> Splits:  # fmt: skip
    """Take the test and the validation split from the training part, unless the data set brings them.

    known: whether the data set is a published one, of which only equal images are copies, and whose oddities are no
    errors. contradict: whether equal examples with different targets are an error. like: a fingerprint of the run that
    the splits are for; when an earlier version made it, they and the fingerprint are made as there. fold: the
    validation split is this one of so many folds, from 1, and not `validation`; the fingerprint is the same of all.
    Raises ConfigError when there are fewer than two classes, a split lacks a class, files are missing, an image has
    several labels, a target does not vary, or there is a fold and the data brings its validation split.
    """
    target = parts.target
    if (problem := target.problem()) is not None:
        raise ConfigError([Diagnostic(problem)])
    _counts(target, parts.train.targets, "training split")
    if parts.validation is not None:
        _counts(target, parts.validation.targets, "validation split")
        if fold is not None:
            message = "the data brings its validation split, so that there is none to take in folds"
            raise ConfigError([Diagnostic(message, key="fold")])
    before = like is not None and not like.startswith(VERSION)
    notes: list[Note] = []
    compared = copies != "allow"
    if before:
        examples = _as_before(parts)
    else:
        examples, notes = find(parts, near=compared and not known, strict=compared and contradict)
        if copies == "together":
            notes += across(examples, optional=not known)
            taken_from = (parts.test is None and parts.test_share) or (
                parts.validation is None and (validation or fold)
            )
            notes += within(examples) if taken_from else []
    rows = np.flatnonzero(examples.of("train"))
    if copies == "allow":
        examples = replace(examples, sets=np.arange(len(examples.targets)))
    if copies == "drop" and not before:
        dropped, dropping = left_out(examples)
        notes += dropping
        rows = rows[~dropped[rows]]
        _counts(target, examples.targets[rows], "training split without copies")
    examples = _with_groups(examples, parts)
    chosen = {name: np.flatnonzero(examples.of(name)) for name in parts.given()}
    if parts.test is None and parts.test_share:
        rows, chosen["test"] = _held_out(examples, rows, parts.test_share, target, "test")
    mark = _fingerprint(examples, parts, {**chosen, "train": rows}, before=before)
    if fold is not None:
        rows, chosen["validation"] = _one_fold(examples, rows, target, *fold)
    elif parts.validation is None and validation:
        rows, chosen["validation"] = _held_out(examples, rows, validation, target, "validation")

    taken = {name: parts.train.subset(places) for name, places in chosen.items() if name not in parts.given()}
    splits = parts.given() | taken
    if len(rows) < len(parts.train):
        splits["train"] = parts.train.subset(rows)
    found = splits["train"], splits.get("validation"), splits.get("test")
    return Splits(*found, target.fitted(splits["train"].targets), mark, tuple(notes))


def _with_groups(examples: Examples, parts: RawDataset) -> Examples:
    """The examples, where those of a group stay together as copies do."""
    groups = [group for source in parts.given().values() if (group := source.groups()) is not None]
    if not groups:
        return examples
    _, first, which = np.unique(np.concatenate(groups), return_index=True, return_inverse=True)
    rows, sets = np.arange(len(examples.sets)), Sets(len(examples.sets))
    sets.join(rows, examples.sets)
    sets.join(rows, first[which.reshape(-1)])
    return replace(examples, sets=sets.roots(rows), grouped=True)


def _held_out(
    examples: Examples, rows: np.ndarray, share: float | int, target: TargetSpec, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that stay, and those that a split of this name takes."""
    kept = examples.keys[rows], examples.sets[rows]
    taken = take(target, examples.targets[rows], share, name, *kept, grouped=examples.grouped)
    return rows[~taken], rows[taken]


def _one_fold(
    examples: Examples, rows: np.ndarray, target: TargetSpec, number: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the other folds, and those of this one, from 1."""
    strata = target.strata(examples.targets[rows])
    classes = strata if strata is not None else np.zeros(len(rows), np.int64)
    names = target.names if strata is not None else ()
    taken = folds(classes, examples.keys[rows], examples.sets[rows], count, names) == number - 1
    return rows[~taken], rows[taken]


def take(
    target: TargetSpec, targets: np.ndarray, share: float | int, name: str, keys: np.ndarray, sets: np.ndarray, *,
    grouped: bool = False,
) -> np.ndarray:  # fmt: skip
    """(N,) bool: which examples the rule takes for a split of this name.

    share: of every class, or a number in all. keys: (N,), the lowest are taken. sets: (N,), equal for examples that
    stay together. grouped: whether the data says which do. Raises ConfigError naming the class when one is left without
    examples on either side.
    """
    strata, counts = target.strata(targets), _counts(target, targets, "data set")
    classes = target.names if strata is not None else ()
    if isinstance(share, int) and share >= len(targets):
        message = f"`{name}: {share}` takes all {len(targets):,} examples that there are"
        raise ConfigError([Diagnostic(message)])
    quotas = class_quotas(share, counts)
    for left, what in ((quotas, name), (counts - quotas, "training")):
        if (left <= 0).any():
            raise _without(classes, counts, np.flatnonzero(left <= 0).tolist(), what, f"`{name}` is {share}")
    classes_of = strata if strata is not None else np.zeros(len(targets), np.int64)
    members = [np.flatnonzero(classes_of == label) for label in range(len(quotas))]
    if grouped:
        taken = _whole_groups(classes_of, quotas, keys, sets)
    else:
        taken = np.zeros(len(targets), dtype=bool)
        for rows, quota in zip(members, quotas.tolist()):
            taken[rows[_lowest(keys[rows], sets[rows], quota)]] = True
    for label, rows in enumerate(members):
        if not 0 < taken[rows].sum() < len(rows):
            which = f"class `{classes[label]}`" if classes else "the data set"
            raise _undividable(which, len(rows), len(np.unique(sets[rows])), grouped)
    return taken


def _whole_groups(strata: np.ndarray, quotas: np.ndarray, keys: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """(N,) bool: whole groups in the order of their lowest keys, those left out with which more of a class would be
    taken than its quota; where each has too many of one, those with which no more examples in all are taken, or the
    smallest. strata: (N,) int64; quotas: of each stratum; sets: (N,), equal within a group."""
    _, which, sizes = np.unique(sets, return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    counts = np.zeros((len(sizes), len(quotas)), np.int64)
    np.add.at(counts, (which, strata), 1)
    first = np.unique(which[np.argsort(keys, kind="stable")], return_index=True)[1]
    chosen = np.zeros(len(sizes), dtype=bool)
    for each, most in ((counts, quotas), (sizes[:, None], quotas.sum(keepdims=True))):
        left = most.copy()
        for group in np.argsort(first, kind="stable").tolist() if not chosen.any() else ():
            if (each[group] <= left).all():
                chosen[group] = True
                left -= each[group]
    if not chosen.any():
        chosen[np.argmin(sizes)] = True
    return chosen[which]


def _lowest(keys: np.ndarray, sets: np.ndarray, quota: int) -> np.ndarray:
    """Places of `quota` examples: whole sets in the order of their lowest keys, those left out that no longer fit.
    Where each is larger than the quota, the smallest set, unless it is the only one."""
    _, which, sizes = np.unique(sets, return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    order = np.argsort(keys, kind="stable")
    if len(sizes) == len(keys):
        return order[:quota]
    places = np.unique(which[order], return_index=True)[1]
    turn, free, chosen = np.argsort(places, kind="stable"), quota, np.zeros(len(sizes), dtype=bool)
    for one in turn.tolist():
        if sizes[one] <= free:
            chosen[one] = True
            free -= int(sizes[one])
    if not chosen.any() and len(sizes) > 1:
        chosen[turn[np.argmin(sizes[turn])]] = True
    return np.flatnonzero(chosen[which])


def _without(classes: Sequence[str], counts: np.ndarray, empty: list[int], what: str, given: str) -> ConfigError:
    """A split would lack the classes at `empty`. counts: of examples, by the class, or of all where there are none."""
    message, has = f"the {what} split would have no example", "the data set has"
    if classes:
        more = f" (and {len(empty) - 1} other classes)" if len(empty) > 1 else ""
        message += f" of class `{classes[empty[0]]}`{more}"
        has = f"the class has {counts[empty[0]]} of the"
    return ConfigError([Diagnostic(message, notes=(f"{has} {counts.sum():,} examples, and {given}",))])


def _undividable(which: str, examples: int, sets: int, grouped: bool) -> ConfigError:
    if grouped:
        message = f"{which} cannot be divided: its {examples:,} examples are of {sets:,} group{'s' * (sets > 1)}"
        note = "the examples of a group stay in one split: take a smaller share, or groups that are smaller"
        return ConfigError([Diagnostic(message, notes=(note,), key="group")])
    alike = "are all copies of one another" if sets == 1 else f"are copies of {sets} different ones"
    message = f"{which} cannot be divided: its {examples:,} examples {alike}"
    note = "copies stay on one side; `data.copies: allow` takes them for different images, `drop` keeps one of each"
    return ConfigError([Diagnostic(message, notes=(note,))])


def class_quotas(share: float | int, counts: np.ndarray) -> np.ndarray:
    """How many examples each class gives: round(f * n) for a fraction f; a count is spread in proportion to
    the classes' sizes, the largest remainders (of equal ones, the first class) getting one more."""
    if isinstance(share, float):
        return np.array([round(share * n) for n in counts.tolist()], dtype=np.int64)
    exact = [Exact(share * n, int(counts.sum())) for n in counts.tolist()]
    quotas = [int(quota) for quota in exact]
    by_remainder = sorted(range(len(exact)), key=lambda k: (quotas[k] - exact[k], k))
    for label in by_remainder[: share - sum(quotas)]:
        quotas[label] += 1
    return np.array(quotas, dtype=np.int64)


def _counts(target: TargetSpec, targets: np.ndarray, name: str) -> np.ndarray:
    """(K,) examples of each class, or (1,) of all. Raises ConfigError naming a class without any."""
    strata = target.strata(targets)
    if strata is None:
        return np.array([len(targets)])
    counts = np.bincount(strata, minlength=len(target.names))
    if not counts.all():
        absent = target.names[int(np.argmin(counts))]
        raise ConfigError([Diagnostic(f"class `{absent}` has no example in the {name}")])
    return counts


# -- the fingerprint


def fingerprint(parts: RawDataset) -> str:
    """What a data set is known by that is not divided: VERSION and 32 hexadecimal digits. They change when an example,
    the name of a file, a label, a class name or a given split changes, but not with the order of the examples.

    Raises ConfigError when a file is empty or cannot be read.
    """
    examples, _ = find(parts, near=False, strict=False)
    return _fingerprint(examples, parts, {name: np.flatnonzero(examples.of(name)) for name in parts.given()})


def _fingerprint(examples: Examples, parts: RawDataset, rows: dict[str, np.ndarray], *, before: bool = False) -> str:
    """That of the examples in `rows` of each split. before: as earlier versions made it, with the sizes of files."""
    total = hashlib.blake2b(parts.target.mark.encode(), digest_size=16)
    besides = [each for source in parts.given().values() for each in (_sizes(source) if before else _paths(source))]
    for name in ("train", "validation", "test"):
        if name in rows:
            total.update(name.encode())
            places = rows[name].tolist()
            values = examples.targets[places].tolist()
            each = zip(examples.keys[places].tolist(), values, [besides[place] for place in places])
            for key, value, beside in sorted(each):
                total.update(b"%s %s %s\n" % (key, parts.target.digest(value), beside))
    return total.hexdigest() if before else VERSION + total.hexdigest()


def _paths(source: Source) -> list[bytes]:
    return source.keys() if source.files is not None else [b""] * len(source)


# -- as earlier versions did


def _as_before(parts: RawDataset) -> Examples:
    """The examples without their copies, with the digests of pixels or paths as keys."""
    given = parts.given()
    targets = np.concatenate([source.targets for source in given.values()])
    splits = np.repeat(np.arange(len(given)), [len(source) for source in given.values()])
    keys = [hashlib.blake2b(key, digest_size=16).hexdigest() for source in given.values() for key in source.keys()]  # noqa: SIM118
    return Examples(
        [], parts.train.words, targets, splits, np.array(keys, dtype="S32"), np.arange(len(targets)), tuple(given)
    )


def _sizes(source: Source) -> list[bytes]:
    if source.files is None:
        return [b"0"] * len(source)
    try:
        return [b"%d" % Path(path).stat().st_size for path in source.files.full]
    except OSError as error:
        raise ConfigError([Diagnostic(f"{error.filename} cannot be read: {error.strerror}")]) from None
