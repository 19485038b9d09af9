"""Copies among the examples of a data set: found before it is divided, so that no copy is tested on what it is of.

    splits as given -> contents -> sets of copies -> one side of every boundary, left out, or only spoken of

Copies are images with equal pixels, and near copies: compressed anew, resized, brightened or cut a little. Near copies
with different labels are no copies for this purpose, since two classes may look alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.copies import likeness
from dltrain.data.copies.contents import keys
from dltrain.data.types import RawDataset
from dltrain.errors import Note

SHOWN = 5
"""Pairs that a message names."""


@dataclass(frozen=True)
class Examples:
    """All examples of a data set in one row: those of the training part, then validation, then test, where given.

    targets: (N, ...). splits: (N,) index of the given split. keys: (N,) digests of what each holds. sets: (N,), equal
    for copies.
    """

    names: list[str]
    words: str
    """What they are called, as `Source.words`."""
    targets: np.ndarray
    splits: np.ndarray
    keys: np.ndarray
    sets: np.ndarray
    split_names: tuple[str, ...]
    grouped: bool = False
    """Whether `sets` are also those of groups that the data names."""

    def of(self, split: str) -> np.ndarray:
        """(N,) bool: which examples are of a given split."""
        named = self.split_names.index(split) if split in self.split_names else -1
        return np.asarray(self.splits == named)


def find(parts: RawDataset, *, near: bool, strict: bool) -> tuple[Examples, list[Note]]:
    """The examples with their copies, and what is odd about them, a note each.

    near: whether images are decoded for it, and near copies sought; else copies have equal bytes. strict: whether one
    image with several labels is an error, if it is trained on. Raises ConfigError for that, and for files that cannot
    be read.
    """
    given = parts.given()
    found = np.concatenate([source.contents(look=near) for source in given.values()])
    targets = np.concatenate([source.targets for source in given.values()])
    labels = parts.target.groups(targets)
    sets = likeness.Sets(len(labels))
    _, first, same = np.unique(found["pixels"], axis=0, return_index=True, return_inverse=True)
    equal = np.where(found["blank"], np.arange(len(labels)), first[same.reshape(-1)])  # nothing is no copy of nothing
    names = [name for source in given.values() for name in source.names()]
    notes = []
    torn = np.flatnonzero(labels != labels[equal])
    trained = torn[equal[torn] < len(parts.train)]  # those of the training part come first
    for rows, wrong in ((trained, strict), (np.setdiff1d(torn, trained), False)):
        if len(rows):
            message = _contradiction(rows, equal, names, targets, parts)
            if wrong:
                raise ConfigError([message])
            notes.append(Note("warning", "contradiction", message.message))
    agreeing = np.flatnonzero((equal != np.arange(len(labels))) & (labels == labels[equal]))
    sets.join(agreeing, equal[agreeing])
    pairs = likeness.copies(found["sketch"], labels, sets) if near else ()
    if apart := [(one, other) for one, other in pairs if equal[one] != equal[other]]:
        one, other = apart[0]
        count = len({place for pair in apart for place in pair})
        text = f"{count:,} images look like one of another class, such as {names[one]} and {names[other]}"
        notes.append(Note("warning", "contradiction", f"{text}: look whether they are labelled rightly"))
    splits = np.repeat(np.arange(len(given)), [len(source) for source in given.values()])
    rows = np.arange(len(labels))
    return Examples(names, parts.train.words, targets, splits, keys(found), sets.roots(rows), tuple(given)), notes


def across(examples: Examples, *, optional: bool) -> list[Note]:
    """A note for each pair of given splits that share images. optional: whether the data set has `copies`."""
    notes = []
    for unseen in ("test", "validation"):
        for seen in ("train", "validation"):
            ours, theirs = examples.of(unseen), examples.of(seen)
            if seen == unseen or not ours.any() or not theirs.any():
                continue
            copied = np.flatnonzero(ours & np.isin(examples.sets, examples.sets[theirs]))
            if len(copied):
                of = np.flatnonzero(theirs & (examples.sets == examples.sets[copied[0]]))[0]
                what = "training" if seen == "train" else seen
                remedy = (
                    "; `data.copies: drop` leaves those out of the training" if seen == "train" and optional else ""
                )
                words = examples.words
                many = f"{len(copied):,} of {ours.sum():,} {unseen} {words} are copies of {what} {words}"
                one = f"{examples.names[copied[0]]} of {examples.names[of]}"
                notes.append(Note("warning", "copies", f"{many}, such as {one}{remedy}"))
    return notes


def within(examples: Examples) -> list[Note]:
    """A note on the copies in the training part, of which other splits are taken."""
    rows = np.flatnonzero(examples.of("train"))
    _, which, sizes = np.unique(examples.sets[rows], return_inverse=True, return_counts=True)
    if len(sizes) == len(rows):
        return []
    one, other, *_ = rows[which.reshape(-1) == int(np.argmax(sizes > 1))].tolist()
    many = f"{len(rows) - len(sizes):,} of {len(rows):,} {examples.words} are copies of others"
    pair = f"{examples.names[other]} of {examples.names[one]}"
    return [Note("info", "copies", f"{many}, such as {pair}: they stay in one split")]


def left_out(examples: Examples) -> tuple[np.ndarray, list[Note]]:
    """(N,) bool, which examples `drop` leaves out, all of the training part: copies of given validation and test
    images, and of each other set of copies all but the one with the lowest key. And a note that says how many."""
    train = examples.of("train")
    copied = train & np.isin(examples.sets, examples.sets[~train])
    rows = np.flatnonzero(train & ~copied)
    ordered = rows[np.lexsort((examples.keys[rows], examples.sets[rows]))]
    again = np.zeros(len(train), dtype=bool)
    again[ordered[1:]] = examples.sets[ordered[1:]] == examples.sets[ordered[:-1]]
    notes = []
    if copied.any():
        others = " and ".join(name for name in ("validation", "test") if name in examples.split_names)
        text = f"{copied.sum():,} copies of {others} {examples.words} are left out of the training (`copies: drop`)"
        notes.append(Note("info", "copies", text))
    if again.any():
        text = f"{again.sum():,} copies of other {examples.words} are left out (`copies: drop`)"
        notes.append(Note("info", "copies", text))
    return copied | again, notes


def _contradiction(
    torn: np.ndarray, equal: np.ndarray, names: list[str], targets: np.ndarray, parts: RawDataset
) -> Diagnostic:
    """What to say of the examples `torn`, whose labels are not those of `equal[torn]`, with equal content."""
    target, words = parts.target, parts.train.words
    pairs = [
        f"{names[of]} (`{target.text(targets[of].tolist())}`) and {names[row]} (`{target.text(targets[row].tolist())}`)"
        for row, of in zip(torn[:SHOWN].tolist(), equal[torn[:SHOWN]].tolist())
    ]
    more = [f"and {len(torn) - SHOWN:,} more"] if len(torn) > SHOWN else []
    message = f"the same {words[:-1]} is in two classes: {pairs[0]}"
    if len(torn) > 1:
        message = f"{len(torn):,} {words} are in two classes, such as {pairs[0]}"
    remedy = "delete the wrong ones; with `data.copies: allow` they are trained on as they are"
    return Diagnostic(message, notes=(*pairs[1:], *more, remedy))
