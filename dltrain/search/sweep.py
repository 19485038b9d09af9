"""The section `sweep` of an experiment."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from dltrain.config import Positive, PositiveInt, Section, reject
from dltrain.config.durations import require_time, seconds_of
from dltrain.search.conditions import Condition, Space
from dltrain.search.pruners import Pruner
from dltrain.search.samplers import Random, Sampler
from dltrain.search.space import Range
from dltrain.tasks.base import Objective

DEFAULT_TRIALS = 100

LEAST = 4
"""Trials that a round has at least: its best quarter is one of them."""


class Sweep(Section):
    """Hyperparameter search on the validation split; the test split takes no part."""

    rivals = ((("vectorize",), ("pruner",)),)

    trials: PositiveInt | None = None
    """How many settings to try; null: 100, or as many as `time` allows."""
    time: Positive | str | None = None
    """How long the search takes, over all its sessions: `2h`, `90m`, or a number of seconds. Trials that train when it
    is over are parked: a longer time goes on with them."""
    epochs: Positive | None = None
    """Epochs of each trial, the schedule compressed to fit; null: as many as training."""
    sampler: Sampler = Random()
    """How settings are drawn."""
    rounds: PositiveInt = 1
    """In how many parts the trials are made: after each, the ranges are narrowed around the best quarter so far."""
    metric: Objective | list[Objective] | None = None
    """What ranks the trials, at its best epoch; null: what ranks models of the task, such as `validation/accuracy`.
    Several, such as [validation/accuracy, parameters]: no trial of the front is worse than another in all of them."""
    pruner: Pruner | None = None
    """Which trials are ended early; null: none."""
    repeats: Annotated[int, Field(ge=1, le=1000)] = 1
    """With how many seeds each setting is trained (`seed`, `seed` + 1, ...): settings are ranked by the mean. One that
    the pruner ends is trained with the first seed alone."""
    vectorize: PositiveInt | Literal["auto"] = 1
    """How many trials are trained as one program, where they differ in the numbers of the optimizer alone. auto: 16,
    where a short probe shows that this is faster."""
    space: Annotated[dict[str, Range], Field(min_length=1)]
    """Dotted keys, and for each the values to search: `optimizer.lr: {low: 1e-3, high: 1, log: true}`."""

    _conditions: dict[str, Condition] = PrivateAttr(default_factory=dict)

    @property
    def whole(self) -> Space:
        """The space, with the keys that take part only under some choices of others."""
        return Space(self.space, self._conditions)

    def under(self, conditions: Mapping[str, Condition]) -> Sweep:
        """The same sweep, some keys of which take part only under some choices: what the catalogues say of them."""
        found = self.model_copy()
        found._conditions = dict(conditions)
        return found

    def decided(self) -> tuple[Sampler, str]:
        """The sampler that draws, and why it is that one where the sweep leaves it open."""
        return self.sampler.decided(self.whole, self.planned)

    @property
    def most_trials(self) -> int:
        """How many settings are tried at most."""
        return self.trials or (DEFAULT_TRIALS if self.time is None else sys.maxsize)

    @property
    def planned(self) -> int:
        """Settings that are tried, as far as that is known before; where time decides, 100."""
        return self.trials or DEFAULT_TRIALS

    @property
    def seconds(self) -> float:
        """How long the search takes at most."""
        return math.inf if self.time is None else seconds_of(self.time)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The objectives, the first of which decides where one has to; () before a task is known."""
        return () if self.metric is None else (self.metric,) if isinstance(self.metric, str) else tuple(self.metric)

    def size(self) -> int | None:
        """How many settings can be drawn; None where there is no end of them."""
        own = self.sampler.size(self.whole) if self.rounds == 1 else None
        return self.whole.size() if own is None else own

    def exhausted(self) -> str | None:
        """What there is to say when fewer settings can be drawn than there are trials; else None."""
        size = self.size()
        if size is None or size >= self.planned:
            return None
        what = "space" if size == self.whole.size() else self.sampler.name
        wanted = f", not {self.most_trials}" if self.most_trials < sys.maxsize else ""
        return f"the {what} has {size} settings: each is trained once, which makes {size} trials{wanted}"

    @field_validator("time")
    @classmethod
    def _some_time(cls, time: float | str | None) -> float | str | None:
        return require_time("sweep.time", time)

    @field_validator("metric")
    @classmethod
    def _some_metrics(cls, metric: str | list[str] | None) -> str | list[str] | None:
        tags = [metric] if isinstance(metric, str) else metric
        if tags is not None and not any(tag.startswith("validation/") for tag in tags):
            raise reject("metric", "a search needs a metric of the validation split, such as `validation/loss`")
        if tags is not None and (twice := [tag for index, tag in enumerate(tags) if tag in tags[:index]]):
            raise reject("metric", f"`metric` names `{twice[0]}` twice")
        return metric

    @model_validator(mode="after")
    def _agree(self) -> Sweep:
        if self.pruner is not None and len(self.metrics) > 1:
            raise reject("pruner", "trials are ended early by one metric, and `metric` has several")
        if self.pruner is not None and self.vectorize != 1:
            raise reject("vectorize", "trials that are trained as one program end together: leave `pruner` out")
        return self

    @field_validator("space", mode="before")
    @classmethod
    def _dotted_keys(cls, space: Any) -> Any:
        for key, values in space.items() if isinstance(space, dict) else ():
            for inner in values if isinstance(values, dict) else ():
                if isinstance(values[inner], dict):
                    raise reject("space", f"the keys of a space are dotted: write `{key}.{inner}`")
        return space

    @model_validator(mode="after")
    def _rounds_with_trials(self) -> Sweep:
        if self.rounds > 1 and self.planned < (least := LEAST * self.rounds):
            message = f"{self.rounds} rounds need at least {least} trials, {LEAST} each; there are {self.planned}"
            raise reject("rounds", message)
        return self
