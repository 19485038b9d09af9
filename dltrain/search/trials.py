"""A trial as samplers know it: what was drawn for it, and what it told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Told:
    """A trial as far as it is known. index: its place in the sweep, from 0. drawn: what was drawn of the keys that take
    part (of choices their place in the list). costs: one per objective, smaller is better; None for a trial that still
    runs, or that has ended and failed. ended: whether it has ended."""

    index: int
    drawn: dict[str, Any]
    costs: tuple[float, ...] | None
    ended: bool


@dataclass(frozen=True)
class Setting:
    """A setting to try. drawn: as in `Told`, for the record. values: the experiment's values, of the keys that take
    part. round: from 0."""

    drawn: dict[str, Any]
    values: dict[str, Any]
    round: int
