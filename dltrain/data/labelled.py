"""Data that a network was not trained on, for `eval`: nothing of it is kept apart, and classes are matched by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.datasets import Dataset
from dltrain.data.splitting import fingerprint
from dltrain.data.targets import Classes
from dltrain.data.types import RawDataset, Source

PLACES = ("root", "path")
"""The options of data sets that say where they are."""


def same_place(one: Dataset, other: Dataset) -> bool:
    """Whether two sections mean the data set of one place."""
    return _place(one) == _place(other)


def labelled(dataset: Dataset, split: str, classes: Sequence[str]) -> tuple[Source, str, str]:
    """The examples to measure, with labels as in `classes`; what they are, in words; and their fingerprint.

    Of a data set that brings a split of the asked name, that split; else all that there is.
    Raises ConfigError when the data is unfit, or has classes that are not among `classes`.
    """
    given = dataset.given(classes)
    known = {name: label for label, name in enumerate(classes)}
    unknown = list(dict.fromkeys(name for _, names in given.values() for name in names if name not in known))
    if unknown:
        message = f"the network was not trained on these classes of the data: {_listed(unknown)}"
        raise ConfigError([Diagnostic(message, notes=(f"it knows {_listed(classes)}",))])
    sources = {
        name: source.with_targets(np.array([known[each] for each in names], dtype=np.int64)[source.targets])
        for name, (source, names) in given.items()
    }
    if split in sources:
        chosen, what = sources[split], f"its {split} split"
    else:
        first, *others = sources.values()
        chosen, what = first.joined(others), "all that is labelled"
    return chosen, what, fingerprint(RawDataset(chosen, None, None, Classes(list(classes))))


def _place(dataset: Dataset) -> tuple[Any, ...]:
    return dataset.name, *(str(Path(getattr(dataset, key)).resolve()) for key in PLACES if hasattr(dataset, key))


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
