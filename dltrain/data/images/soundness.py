"""Every file of a data set is decoded once before anything else, so that all that cannot be read is known at once.

What was found is remembered, see `contents`: a file that has not changed is not decoded for this again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from dltrain.config import ConfigError, Diagnostic
from dltrain.console.streams import printable
from dltrain.data.copies.contents import unreadable
from dltrain.data.types import RawDataset, Source

REMEDY = "with `on_error: skip` in `data`, all files that cannot be read are left out of the training"


def require_sound(source: Source) -> None:
    """Raise ConfigError naming every file that cannot be read."""
    if source.files is not None and (bad := unreadable(source.files)):
        raise ConfigError(bad.values())


def sound(parts: RawDataset, on_error: Literal["fail", "skip"]) -> RawDataset:
    """The parts, without the files that cannot be read when they are to be skipped.

    Raises ConfigError naming all of them when they are not, or nothing else would be left of a split.
    """
    given = parts.given()
    bad = {name: unreadable(source.files) for name, source in given.items() if source.files is not None}
    problems = [problem for found in bad.values() for problem in found.values()]
    if problems and on_error == "fail":
        raise ConfigError(replace(problem, notes=(*problem.notes, REMEDY)) for problem in problems)
    if any(len(found) == len(given[name]) for name, found in bad.items()):
        raise ConfigError(problems)
    kept: dict[str, Source] = {}
    for name, found in bad.items():
        if found:
            kept[name] = given[name].subset(np.setdiff1d(np.arange(len(given[name])), list(found)))
    skipped = tuple(_told(problem) for problem in problems)
    return replace(
        parts, train=kept.get("train", parts.train), validation=kept.get("validation", parts.validation),
        test=kept.get("test", parts.test), skipped=skipped,
    )  # fmt: skip


def _told(problem: Diagnostic) -> str:
    return printable(problem.message.removeprefix("the image file "))
