"""Which examples are for testing, validation and training; and the fingerprint of a data set.

The rule: of every class, the examples with the lowest content hash. It does not know the seed, and as a
data set grows a fraction moves at most boundary examples. Examples with identical content have the same
hash and are taken in the order of the data set, so copies can end up on both sides of a boundary.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from fractions import Fraction as Exact
from pathlib import Path

import numpy as np

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.base import FileSource, Source, Splits


@dataclass(frozen=True)
class Parts:
    """A data set as it was read: `train` still holds the examples that validation will take."""

    train: Source
    validation: Source | None
    test: Source | None
    classes: list[str]


def content_hashes(source: Source) -> np.ndarray:
    """(N,) 16-byte blake2b digests of the examples' pixels, or of their paths."""
    digests = [hashlib.blake2b(key, digest_size=16).digest() for key in source.keys()]  # noqa: SIM118
    return np.array([d.hex() for d in digests], dtype="S32")


def lowest_hashes(hashes: np.ndarray, labels: np.ndarray, quotas: np.ndarray) -> np.ndarray:
    """Indices, ascending, of the `quotas[k]` examples of each class k with the lowest hash."""
    chosen = []
    for label, quota in enumerate(quotas):
        members = np.flatnonzero(labels == label)
        chosen.append(members[np.argsort(hashes[members], kind="stable")[:quota]])
    return np.sort(np.concatenate(chosen))


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


def hold_out(
    source: Source, share: float | int, classes: list[str], name: str = "test", hashes: np.ndarray | None = None
) -> tuple[Source, Source | None]:
    """The rest, and the part of `source` that the rule takes; None when `share` is 0.

    hashes: those of `source`, if they are known. Raises ConfigError naming the class when one is left
    without examples in either part.
    """
    if share == 0:
        return source, None
    counts = _counts(source, classes, "data set")
    if isinstance(share, int) and share >= len(source):
        message = f"`{name}: {share}` takes all {len(source):,} examples that there are"
        raise ConfigError([Diagnostic(message)])
    quotas = class_quotas(share, counts)
    for taken, what in ((quotas, name), (counts - quotas, "training")):
        if empty := [c for c, n in zip(classes, taken.tolist(), strict=True) if n <= 0]:
            first = classes.index(empty[0])
            more = f" (and {len(empty) - 1} other classes)" if len(empty) > 1 else ""
            message = f"the {what} split would have no example of class `{empty[0]}`{more}"
            note = f"the class has {counts[first]} of the {len(source):,} examples, and `{name}` is {share}"
            raise ConfigError([Diagnostic(message, notes=(note,))])
    taken = lowest_hashes(content_hashes(source) if hashes is None else hashes, source.labels, quotas)
    rest = np.setdiff1d(np.arange(len(source)), taken, assume_unique=True)
    return source.subset(rest), source.subset(taken)


def divide(parts: Parts, validation: float | int) -> Splits:
    """Take the validation split from the training part, unless the data set brings one.

    Raises ConfigError when there are fewer than two classes, or a split lacks a class.
    """
    if len(parts.classes) < 2:
        message = f"a classifier needs two classes or more, and the data has {parts.classes}"
        raise ConfigError([Diagnostic(message)])
    _counts(parts.train, parts.classes, "training split")
    if parts.validation is not None:
        _counts(parts.validation, parts.classes, "validation split")
    hashes = content_hashes(parts.train)
    mark = fingerprint(parts, hashes)
    train, held_out = parts.train, parts.validation
    if held_out is None:
        train, held_out = hold_out(train, validation, parts.classes, "validation", hashes)
    return Splits(train, held_out, parts.test, parts.classes, mark)


def _counts(source: Source, classes: list[str], name: str) -> np.ndarray:
    """(K,) examples of each class. Raises ConfigError naming a class without any."""
    counts = np.bincount(source.labels, minlength=len(classes))
    if not counts.all():
        absent = classes[int(np.argmin(counts))]
        raise ConfigError([Diagnostic(f"class `{absent}` has no example in the {name}")])
    return counts


def fingerprint(parts: Parts, train_hashes: np.ndarray) -> str:
    """32 hex digits that change when an example, a label, a class name or a given split changes, but not with
    the order of the examples. Files are known by their relative path and size.

    Raises ConfigError when a file is empty or gone.
    """
    total = hashlib.blake2b(json.dumps(parts.classes).encode(), digest_size=16)
    for name, source in (("train", parts.train), ("validation", parts.validation), ("test", parts.test)):
        if source is None:
            continue
        total.update(name.encode())
        hashes = train_hashes if source is parts.train else content_hashes(source)
        sizes = _file_sizes(source) if isinstance(source, FileSource) else [0] * len(source)
        for digest, label, size in sorted(zip(hashes.tolist(), source.labels.tolist(), sizes, strict=True)):
            total.update(b"%s %d %d\n" % (digest, label, size))
    return total.hexdigest()


def _file_sizes(source: FileSource) -> list[int]:
    sizes = []
    for path in source.paths:
        file = Path(source.root, path)
        try:
            sizes.append(file.stat().st_size)
        except OSError as error:
            raise ConfigError([Diagnostic(f"{file} cannot be read: {error.strerror}")]) from None
        if not sizes[-1]:
            raise ConfigError([Diagnostic(f"the image file {file} is empty (0 bytes)")])
    return sizes
