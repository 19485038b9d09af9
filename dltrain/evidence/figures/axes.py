"""Axes: where a value stands between 0 and 1, and which values are written beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Any, Literal, Protocol

FENCE = 3.0
"""How many interquartile ranges beyond the quartile a value may lie and still stretch a fenced axis: what Tukey
(Exploratory Data Analysis, 1977) calls far out lies beyond."""
GOLDEN = 0.6180339887498949
"""Its multiples, without their whole parts, fill an interval evenly however many they are."""
WIDE = 1000.0
"""Ratio of the largest to the smallest value from which an axis that may choose is logarithmic."""


class Axis(Protocol):
    """Where values stand: 0 is the left or lower end, 1 the other."""

    @property
    def label(self) -> str:
        """What the axis measures."""

    def place(self, value: Any) -> float:
        """Where a value stands, from 0 to 1; what lies beyond an end stands at it."""

    def unbounded(self, value: Any) -> float:
        """The same where what lies beyond an end does not stop there: below 0 or above 1."""

    def beyond(self, value: Any) -> int:
        """Beyond which end a value lies: -1 the lower, 1 the upper, 0 neither."""

    def ticks(self, count: int) -> list[tuple[float, str]]:
        """About `count` places with what is written there, from 0 to 1."""


@dataclass(frozen=True)
class Numbers:
    """An axis of numbers from `low` to `high`, both finite, low < high; both positive where it is logarithmic.

    whole: whether only whole numbers are written beside it.
    """

    label: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    @classmethod
    def of(
        cls, label: str, values: Iterable[float], *, log: bool | None = False, whole: bool = False,
        fence: Literal["low", "high"] | None = None, margin: float = 0.04,
    ) -> Numbers:  # fmt: skip
        """The axis that holds the finite ones of `values`, with a margin of that share at both ends.

        log: None chooses: logarithmic when all are positive and they span three decades. fence: the end at which single
        values far out do not stretch the axis.
        """
        finite = sorted(float(value) for value in values if math.isfinite(value))
        if log is None:
            log = bool(finite) and finite[0] > 0 and finite[-1] / finite[0] >= WIDE
        if log:
            finite = [value for value in finite if value > 0]
        if not finite:
            return cls(label, 1.0, 10.0, log, whole) if log else cls(label, 0.0, 1.0, log, whole)
        scaled = [math.log10(value) for value in finite] if log else finite
        low, high = _fenced(scaled, fence)
        if low == high:
            room = 0.5 if whole or log else max(abs(low) * 0.05, 1e-12)
        else:
            room = (high - low) * margin
        low, high = low - room, high + room
        return cls(label, 10**low, 10**high, log, whole) if log else cls(label, low, high, log, whole)

    def place(self, value: float) -> float:
        """Where a number stands, from 0 to 1."""
        return min(max(self.unbounded(value), 0.0), 1.0)

    def unbounded(self, value: float) -> float:
        """Where a number stands, however far beyond; on a logarithmic axis, 0 and less stand far below."""
        if self.log and value <= 0:
            return -100.0
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return (at - low) / (high - low)

    def beyond(self, value: float) -> int:
        """Beyond which end a number lies: -1, 1, or 0 for neither; rounding does not count."""
        room = 1e-9 * (self.high - self.low)
        return (value > self.high + room) - (value < self.low - room)

    def ticks(self, count: int) -> list[tuple[float, str]]:
        """Round numbers on the axis: 1, 2 or 5 times a power of ten, or their multiples."""
        values = self._decades(count) if self.log else []
        if len(values) > 2 or (values and self.high / self.low > 100):  # else even steps say more
            return [(self.place(value), number(value)) for value in values]
        step = self._step(count)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(self.place(index * step), number(index * step, step)) for index in range(first, last + 1)]

    def _step(self, count: int) -> float:
        """A round step that divides the axis into about `count` (Heckbert, Nice numbers for graph labels, 1990)."""
        rough = (self.high - self.low) / max(count, 1)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough * 0.999)
        return max(step, 1.0) if self.whole else step

    def _decades(self, count: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        inside = [(power, times) for power in range(first, last + 1) for times in (1, 2, 5)]
        inside = [(p, t) for p, t in inside if self.low * 0.999999 <= t * 10.0**p <= self.high * 1.000001]
        if self.whole:
            inside = [(power, times) for power, times in inside if power >= 0]
        if len(inside) <= max(count, 6):
            return [times * 10.0**power for power, times in inside]
        powers = [10.0**power for power, times in inside if times == 1]
        return powers[:: math.ceil(len(powers) / max(count, 1))]


def _fenced(ordered: Sequence[float], fence: str | None) -> tuple[float, float]:
    low, high = ordered[0], ordered[-1]
    if fence is None or len(ordered) < 8:
        return low, high
    first, _, third = quantiles(ordered, n=4)
    room = FENCE * (third - first)
    if fence == "low":
        return min(value for value in ordered if value >= first - room), high
    return low, max(value for value in ordered if value <= third + room)


@dataclass(frozen=True)
class Names:
    """An axis of names, each with a place of its own."""

    label: str
    names: Sequence[str]

    def place(self, value: str) -> float:
        """The middle of a name's place. Raises ValueError for a name that is not on the axis."""
        return (self.names.index(value) + 0.5) / len(self.names)

    def unbounded(self, value: str) -> float:
        """The same: no name lies beyond."""
        return self.place(value)

    def beyond(self, value: str) -> int:
        """0: a name that is not on the axis has no place at all."""
        return 0

    def ticks(self, count: int) -> list[tuple[float, str]]:
        """Every name: to leave one out would leave its values without a meaning."""
        return [((index + 0.5) / len(self.names), name) for index, name in enumerate(self.names)]


def scattered(axis: Axis, value: Any, index: int) -> float:
    """The place of a value; on a name it varies with `index`, so that equal values can be told apart."""
    place = axis.place(value)
    if not isinstance(axis, Names):
        return place
    return place + ((index * GOLDEN + 0.5) % 1 - 0.5) * 0.6 / len(axis.names)


def number(value: float, step: float | None = None) -> str:
    """A number for people: `0.05`, `12,000`, `1e-5`. step: distance to the next; it says how many digits count."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-4:
        mantissa, _, power = f"{value:.{3 if step is None else _digits(size, step)}e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa}e{int(power)}"
    if step is None:
        return f"{value:,.4g}" if size < 1000 else f"{value:,.0f}"
    return f"{value:,.{max(-math.floor(math.log10(step) + 1e-9), 0)}f}"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _digits(size: float, step: float) -> int:
    return max(math.floor(math.log10(size)) - math.floor(math.log10(step) + 1e-9), 0)
