"""Which searched keys take part only under some choices: the catalogues say which options a choice has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import Any

from dltrain.config.document import Document
from dltrain.config.merging import completed
from dltrain.config.overrides import Override, apply_all, resolve
from dltrain.config.validation import Place
from dltrain.experiment.schema import ExperimentSchema
from dltrain.search import Condition, Range, Sweep

MOST = 2_000
"""Combinations of choices above a key that are looked at; with more of them the key takes part in all."""


def conditional(cls: type[ExperimentSchema], document: Document, sweep: Sweep) -> Sweep:
    """The sweep with the keys that take part only under some choices. A key that no choice takes is left in all, where
    trying it says what is wrong."""
    document = document.without(("sweep",))
    parents = {key: _above(key, sweep.space) for key in sweep.space}
    conditions: dict[str, Condition] = {}
    for key in sorted(sweep.space, key=lambda key: len(parents[key])):
        if not parents[key] or prod(len(sweep.space[parent].choices or []) for parent in parents[key]) > MOST:
            continue
        partial = sweep.under(conditions)
        every = list(_combinations(partial, parents[key]))
        taken = [places for places, values in every if place_of(cls, document, values, key) is not None]
        if 0 < len(taken) < len(every):
            conditions[key] = Condition(tuple(parents[key]), frozenset(taken))
    return sweep.under(conditions)


def place_of(cls: type[ExperimentSchema], document: Document, values: Mapping[str, Any], key: str) -> Place | None:
    """Where a dotted key leads in a document with some keys set; None where there is no such option."""
    tree = completed(cls, apply_all(cls, document, [Override.of(*item) for item in values.items()])[0].tree)
    path = resolve(cls, tree, key)
    place, node = Place(cls, tree, path), tree
    if place.path != path or place.field is None:
        return None
    for part in path[:-1]:
        if isinstance(node, dict) and part in node and node[part] is None:  # an option of what is set to null
            return None
        node = Document(node).get((part,))
    return place


def _above(key: str, space: Mapping[str, Range]) -> list[str]:
    """The searched keys that choose what an option belongs to, the outermost first."""
    found = [
        other
        for other, range_ in space.items()
        if other != key and range_.choices is not None and key.startswith(f"{other.removesuffix('.name')}.")
    ]
    return sorted((other for other in found if key != f"{other}.name"), key=lambda other: other.count("."))


def _combinations(sweep: Sweep, parents: list[str]) -> Iterator[tuple[tuple[int | None, ...], dict[str, Any]]]:
    """The places of the choices of some keys, None for one that takes no part, and what they mean: each once."""
    told = set()
    for row in product(*(range(len(sweep.space[parent].choices or [])) for parent in parents)):
        drawn = sweep.whole.active(dict(zip(parents, row, strict=True)))
        places = tuple(drawn.get(parent) for parent in parents)
        if places not in told:
            told.add(places)
            yield places, sweep.whole.values(drawn)
