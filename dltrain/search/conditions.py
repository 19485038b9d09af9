"""A space with the keys that take part only under some choices: which settings it has, and which of them are the same.

Ranges and conditions flow in. A setting flows through as what was `drawn` of each key (of choices their place in the
list), and out as the experiment's values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

from dltrain.search.space import Range


@dataclass(frozen=True)
class Condition:
    """When a key takes part: `taken` has the places of the choices of `parents`, the searched keys above it, that let
    it; None stands for a parent that takes no part itself."""

    parents: tuple[str, ...]
    taken: frozenset[tuple[int | None, ...]]


@dataclass(frozen=True)
class Space:
    """What can be drawn: a range a key.

    whole: the ranges that settings are told in, when `ranges` are narrower ones. Places of choices count in these.
    """

    ranges: Mapping[str, Range]
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    whole: Mapping[str, Range] = field(default_factory=dict)

    @cached_property
    def places(self) -> dict[str, tuple[int, ...]]:
        """Of each key with choices, the places of those that can be drawn."""
        return {
            key: tuple(map(_of(self._told_in(key)).index, _of(range_)))
            for key, range_ in self.ranges.items()
            if range_.choices is not None
        }

    def _told_in(self, key: str) -> Range:
        return self.whole.get(key, self.ranges[key])

    def active(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """What was drawn of the keys that take part under the choices that were drawn."""
        left = dict(drawn)
        for key in self._outer_first:
            condition = self.conditions[key]
            if key in left and tuple(left.get(parent) for parent in condition.parents) not in condition.taken:
                del left[key]
        return left

    @cached_property
    def _outer_first(self) -> list[str]:
        return sorted(self.conditions, key=lambda key: len(self.conditions[key].parents))

    def taking_part(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Of values of an experiment, those of the keys that take part."""
        parents = {parent for condition in self.conditions.values() for parent in condition.parents}
        places = {
            key: _of(self._told_in(key)).index(_text(value)) if key in parents else 0 for key, value in values.items()
        }
        return {key: values[key] for key in self.active(places)}

    def taking(self, key: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values of an experiment changed so that a key takes part, and those of the keys that do so with it."""
        if (condition := self.conditions.get(key)) is None:
            return self.taking_part(values)
        places = min(condition.taken, key=str)
        chosen = {
            parent: (self._told_in(parent).choices or [])[place]
            for parent, place in zip(condition.parents, places, strict=True)
            if place is not None
        }
        return self.taking_part({**values, **chosen})

    def values(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """What was drawn, as the experiment's values of the keys that take part."""
        found = {}
        for key, value in self.active(drawn).items():
            range_ = self._told_in(key)
            found[key] = range_.value(value) if range_.choices is None else range_.choices[value]
        return found

    def drawn(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What must have been drawn to give these values: the inverse of `values`."""
        return {
            key: _of(self._told_in(key)).index(_text(value)) if key in self.places else value
            for key, value in values.items()
        }

    def is_whole(self, values: Mapping[str, Any]) -> bool:
        """Whether values of an experiment are those of a setting: of every key that takes part, and of no other."""
        return set(self.active({**dict.fromkeys(self.ranges), **self.drawn(values)})) == set(values)

    def rounded(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """What was drawn, numbers as they are tried."""
        return {key: value if key in self.places else self._told_in(key).value(value) for key, value in drawn.items()}

    def identity(self, drawn: Mapping[str, Any]) -> str:
        """Text that settings have in common when they train the same."""
        return json.dumps(self.values(drawn), sort_keys=True)

    def holds(self, drawn: Mapping[str, Any]) -> bool:
        """Whether a setting can be drawn from these ranges."""
        for key, value in self.active(drawn).items():
            if key in self.places:
                if value not in self.places[key]:
                    return False
            else:
                low, high = self.ranges[key].bounds()
                if not low <= value <= high:
                    return False
        return True

    def at(self, shares: Mapping[str, float]) -> dict[str, Any]:
        """The setting at a share in [0, 1] of the way through each range."""
        found = {}
        for key, share in shares.items():
            places = self.places.get(key)
            found[key] = (
                self.ranges[key].at(share) if places is None else places[min(int(share * len(places)), len(places) - 1)]
            )
        return self.active(found)

    def size(self) -> int | None:
        """How many settings there are; None where there is no end of them."""
        sizes = {key: range_.size() for key, range_ in self.ranges.items()}
        parents = {parent for condition in self.conditions.values() for parent in condition.parents}
        total, outer = 0, [key for key in self.ranges if key in parents]
        seen: set[tuple[tuple[str, Any], ...]] = set()
        for places in product(*(self.places[key] for key in outer)):
            others = dict.fromkeys(self.ranges, 0) | dict(zip(outer, places, strict=True))
            drawn = self.active(others)
            chosen = tuple((key, drawn[key]) for key in outer if key in drawn)
            if chosen in seen:
                continue
            seen.add(chosen)
            inner = [sizes[key] for key in drawn if key not in parents]
            if None in inner:
                return None
            total += math.prod(size for size in inner if size is not None)
        return total

    def every(self, drawable: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Every setting of the values given for each key, each once."""
        told: set[tuple[tuple[str, Any], ...]] = set()
        for row in product(*(drawable[key] for key in self.ranges)):
            drawn = dict(zip(self.ranges, row, strict=True))
            if self.conditions:
                drawn = self.active(drawn)
                if (mine := tuple(drawn.items())) in told:
                    continue
                told.add(mine)
            yield drawn

    def drawable(self) -> dict[str, Any]:
        """Every value of each key of a finite space."""
        return {key: self.places[key] if key in self.places else r.values() for key, r in self.ranges.items()}


def _of(range_: Range) -> list[str]:
    """The choices of a range as texts, which tell true from 1."""
    return [_text(choice) for choice in range_.choices or []]


def _text(choice: Any) -> str:
    return json.dumps(choice, sort_keys=True, default=str)
