"""Data that a network was not trained on, for `eval`: nothing of it is kept apart, and classes are matched by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.base import Dataset
from dltrain.data.splitting import fingerprint
from dltrain.data.targets import TargetSpec
from dltrain.data.types import RawDataset, Source

PLACES = ("root", "path")
"""The options of data sets that say where they are."""


def same_place(one: Dataset, other: Dataset) -> bool:
    """Whether two sections mean the data set of one place."""
    return _place(one) == _place(other)


def labelled(dataset: Dataset, split: str, target: TargetSpec) -> tuple[Source, str, str]:
    """The examples to measure, with targets as `target` has them; what they are, in words; and their fingerprint.

    Of a data set that brings a split of the asked name, that split; else all that there is.
    Raises ConfigError when the data is unfit, or has classes, numbers or labels that are not those of `target`.
    """
    given = dataset.given(target)
    found = next(iter(given.values()))[1]
    if found.kind != target.kind:
        raise ConfigError([Diagnostic(f"the network was trained on {target.kind}, and the data has {found.kind}")])
    unknown = list(dict.fromkeys(name for _, own in given.values() for name in own.names if name not in target.names))
    if unknown:
        message = f"the network was not trained on these {target.kind} of the data: {_listed(unknown)}"
        raise ConfigError([Diagnostic(message, notes=(f"it knows {_listed(target.names)}",))])
    sources = {}
    for name, (source, own) in given.items():
        try:
            sources[name] = source.with_targets(own.adopted(source.targets, target.names))
        except KeyError as error:
            message = f"the data has no {target.kind} `{error.args[0]}`, which the network was trained on"
            raise ConfigError([Diagnostic(message)]) from None
    if split in sources:
        chosen, what = sources[split], f"its {split} split"
    else:
        first, *others = sources.values()
        chosen, what = first.joined(others), "all that is labelled"
    return chosen, what, fingerprint(RawDataset(chosen, None, None, target))


def _place(dataset: Dataset) -> tuple[Any, ...]:
    return dataset.name, *(str(Path(getattr(dataset, key)).resolve()) for key in PLACES if hasattr(dataset, key))


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
