"""Narrower ranges around the best settings: what a round of a sweep makes of the trials before it.

    every range: cut to what the best quarter of the trials spans, but to no less than 1/4 of its width and no more
        than 3/4, around the middle of what they span (in the logarithm where it is `log`), never beyond where it was,
        and never without the best trial
    choices: one is dropped when it has had 5 trials at least, and none of them is in the better half

Trials that failed count as the worst. Of several objectives, trials rank by how many others are better in all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dltrain.search.space import DIGITS, Range

Trial = tuple[Mapping[str, Any], tuple[float, ...] | None]
"""What was drawn, and the costs."""
BEST = 0.25
"""Share of the trials that ranges are centred on."""
NARROWEST, WIDEST = 0.25, 0.75
"""Width of a range, in widths of the one before."""
ENOUGH = 5
"""Trials that a choice has had when it can be dropped: by chance, none of five is in the better half once in 32."""


def narrowed(ranges: Mapping[str, Range], whole: Mapping[str, Range], trials: Sequence[Trial]) -> dict[str, Range]:
    """The ranges after trials of a sweep. whole: the sweep's own ranges, in which choices are told by their place."""
    ranked = _ranked(trials)
    found = {}
    for key, range_ in ranges.items():
        mine = [(drawn[key], costs) for drawn, costs in ranked if key in drawn]
        if range_.choices is not None:
            found[key] = _without_the_worse(range_, whole[key], mine)
        else:
            best = [value for value, costs in mine[: max(math.ceil(BEST * len(mine)), 2)] if costs is not None]
            found[key] = _around(range_, whole[key], best) if len(best) > 1 else range_
    return found


def _ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The best first, failed ones last; of several objectives, by the number of trials that are better in all."""

    def order(trial: Trial) -> tuple[bool, int, tuple[float, ...]]:
        costs = trial[1]
        if costs is None:
            return True, 0, ()
        if len(costs) == 1:
            return False, 0, costs
        return False, sum(_dominates(other, costs) for _, other in trials if other is not None), ()

    return sorted(trials, key=order)


def _dominates(costs: tuple[float, ...], others: tuple[float, ...]) -> bool:
    return costs != others and all(mine <= its for mine, its in zip(costs, others, strict=True))


def _without_the_worse(range_: Range, whole: Range, ranked: Sequence[tuple[int, Any]]) -> Range:
    assert whole.choices is not None and range_.choices is not None
    had = Counter(place for place, _ in ranked)
    better = {place for place, costs in ranked[: math.ceil(len(ranked) / 2)] if costs is not None}
    dropped = [choice for place, choice in enumerate(whole.choices) if had[place] >= ENOUGH and place not in better]
    left = [choice for choice in range_.choices if not any(choice is other for other in dropped)]
    return range_.model_copy(update={"choices": left}) if better and left else range_


def _around(range_: Range, whole: Range, best: Sequence[float]) -> Range:
    """The part of a range that some values span, the best of them first. Widths are shares of the whole range."""
    before = range_.bounds()
    low, high = map(whole.share, before)
    shares = [min(max(whole.share(value), low), high) for value in best]
    width, spanned = high - low, max(shares) - min(shares)
    spanned *= (len(best) + 1) / (len(best) - 1)  # evenly spread values span so much less than their range
    new = min(max(spanned, NARROWEST * width), WIDEST * width)
    middle = min(max((min(shares) + max(shares)) / 2, shares[0] - new / 2), shares[0] + new / 2)
    start = min(max(middle - new / 2, low), high - new)
    first, last = (_rounded(whole, whole.at(share)) for share in (start, start + new))
    first, last = max(min(first, best[0]), before[0]), min(max(last, best[0]), before[1])
    if first >= last and whole.size() is not None:  # a range has two values
        step = whole.step or 1
        up = last + step <= before[1]
        first, last = (first, whole.value(last + step)) if up else (whole.value(first - step), last)
    return range_.model_copy(update={"low": first, "high": last}) if first < last else range_


def _rounded(range_: Range, value: Any) -> Any:
    """A bound as it is written: in few digits, which are those that can be drawn."""
    return float(f"{value:.{DIGITS}g}") if range_.size() is None else value
