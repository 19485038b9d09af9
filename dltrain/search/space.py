"""The values of one searched key: an interval or a list of choices."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any

from pydantic import Field, model_validator

from dltrain.config import Positive, PositiveInt, Section, reject

DIGITS = 6
"""Significant digits of drawn numbers: enough for any hyperparameter, and readable in best.yaml."""


class Range(Section):
    """The values of one key to search: an interval (`low`, `high`) or a list (`choices`)."""

    rivals = ((("choices",), ("low", "high", "log", "step")),)

    low: float | int | None = None
    """Smallest value. Of an integer key, integers are drawn; of any other, fractions too."""
    high: float | int | None = None
    """Largest value."""
    log: bool = False
    """Sample the logarithm evenly: for learning rates and weight decay."""
    step: PositiveInt | Positive | None = None
    """Distance between the values."""
    choices: Annotated[list[Any], Field(min_length=2)] | None = None
    """The values to choose from."""

    @model_validator(mode="after")
    def _agree(self) -> Range:
        if self.choices is not None:
            if (self.low, self.high, self.step, self.log) != (None, None, None, False):
                raise reject("choices", "a range has either `choices` or `low` and `high`")
            texts = [json.dumps(value, sort_keys=True, default=str) for value in self.choices]
            if twice := [text for index, text in enumerate(texts) if text in texts[:index]]:
                raise reject("choices", f"`choices` lists {twice[0][:80]} twice")
            return self
        if self.low is None or self.high is None:
            raise ValueError("a range needs `low` and `high`, or `choices`")
        if self.low >= self.high:
            raise reject("high", f"`high` must be above `low` ({self.low:g}), not {self.high:g}")
        if self.log and self.low <= 0:
            raise reject("low", f"a log range needs `low` > 0, not {self.low:g}")
        if self.log and self.step is not None:
            raise reject("step", "a log range takes no `step`")
        if self.step is not None and self.step > self.high - self.low:
            message = f"a `step` of {self.step:g} leaves one value, {self.low:g}: `high` is only {self.high:g}"
            raise reject("step", message)
        if self.step is None and not self.is_integer and f"{self.low:.{DIGITS}g}" == f"{self.high:.{DIGITS}g}":
            raise reject("high", f"`low` and `high` are the same in {DIGITS} digits, which is how numbers are drawn")
        return self

    @property
    def is_integer(self) -> bool:
        """Whether the range holds integers only."""
        return isinstance(self.low, int) and isinstance(self.high, int) and not isinstance(self.step, float)

    def as_floats(self) -> Range:
        """The same interval with fractions too, for a key that takes them."""
        numbers = {key: getattr(self, key) for key in ("low", "high", "step")}
        floats = {key: float(value) for key, value in numbers.items() if isinstance(value, int)}
        return self.model_copy(update=floats)

    def size(self) -> int | None:
        """How many values can be drawn; None where there is no end of them."""
        if self.choices is not None:
            return len(self.choices)
        low, high = self.bounds()
        step = self.step or (1 if self.is_integer else None)
        return None if step is None else round((high - low) / step) + 1

    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value that can be drawn of an interval: integers, or floats."""
        assert self.low is not None and self.high is not None
        return _bounds(self.low, self.high, self.step, self.is_integer)

    def values(self) -> Sequence[Any]:
        """Every value of a range that has an end of them."""
        if self.choices is not None:
            return self.choices
        low, count = self.bounds()[0], self.size()
        assert count is not None
        return [self.value(low + index * (self.step or 1)) for index in range(count)]

    def value(self, drawn: float) -> Any:
        """What was drawn of an interval, as the experiment's value: rounded to 6 digits, within the interval."""
        if self.is_integer:
            return drawn
        low, high = self.bounds()
        if self.step is not None:
            return float(Decimal(str(low)) + round((drawn - low) / self.step) * Decimal(str(self.step)))
        return min(max(float(f"{drawn:.{DIGITS}g}"), low), high)

    def at(self, share: float) -> Any:
        """What lies at a share in [0, 1] of the way through an interval, of its logarithms where it is `log`: every
        value of a finite one has the same part of the way, or the part that its logarithm takes."""
        low, high = self.bounds()
        size = self.size()
        if size is None:
            if self.log:
                return min(max(math.exp(math.log(low) + share * math.log(high / low)), low), high)
            return low + share * (high - low)
        if self.log:
            return min(max(round((low - 0.5) * ((high + 0.5) / (low - 0.5)) ** share), int(low)), int(high))
        return self.value(low + min(int(share * size), size - 1) * (self.step or 1))

    def share(self, value: float) -> float:
        """Where a value lies in an interval: the inverse of `at`, the middle of the way that a value has."""
        low, high = self.bounds()
        size = self.size()
        if self.log:
            rim = 0.0 if size is None else 0.5
            return math.log(value / (low - rim)) / math.log((high + rim) / (low - rim))
        return (value - low) / (high - low) if size is None else (round((value - low) / (self.step or 1)) + 0.5) / size

    def examples(self) -> list[tuple[tuple[str | int, ...], Any]]:
        """Values that must fit the searched key, each with the place in the range that gives it: every choice, or the
        ends of the interval; of integers also the one beside the smallest, which need not divide what the ends do."""
        if self.choices is not None:
            return [(("choices", index), value) for index, value in enumerate(self.choices)]
        low, high = self.bounds()
        fractions = isinstance(self.step, float) and isinstance(self.low, int)  # it is the step that makes them
        ends: list[tuple[tuple[str | int, ...], Any]] = [(("step" if fractions else "low",), low), (("high",), high)]
        if self.is_integer and (size := self.size()) is not None and size > 2:
            ends.insert(1, (("step",) if self.step else ("low",), low + (self.step or 1)))
        return ends


@lru_cache(typed=True)  # asked for each value that is drawn
def _bounds(low: float, high: float, step: float | None, is_integer: bool) -> tuple[float, float]:
    first, last = Decimal(str(low)), Decimal(str(high))
    if step is not None:
        last -= (last - first) % Decimal(str(step))
    return (int(first), int(last)) if is_integer else (float(first), float(last))
