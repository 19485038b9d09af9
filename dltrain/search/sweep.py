"""The section `sweep` of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, field_validator, model_validator

from dltrain.config import Positive, PositiveInt, Section, reject
from dltrain.search.conditions import Condition, Space
from dltrain.search.samplers import Random, Sampler
from dltrain.search.space import Range
from dltrain.tasks.base import ValidationTag

LEAST = 4
"""Trials that a round has at least: its best quarter is one of them."""


class Sweep(Section):
    """Hyperparameter search on the validation split; the test split takes no part."""

    trials: PositiveInt = 100
    """How many settings to try."""
    epochs: Positive | None = None
    """Epochs of each trial, the schedule compressed to fit; null: as many as training."""
    sampler: Sampler = Random()
    """How settings are drawn."""
    rounds: PositiveInt = 1
    """In how many parts the trials are made: after each, the ranges are narrowed around the best quarter so far."""
    metric: ValidationTag | None = None
    """What ranks the trials, at its best epoch; null: what ranks models of the task, such as `validation/accuracy`."""
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
        return self.sampler.decided(self.whole, self.trials)

    def size(self) -> int | None:
        """How many settings can be drawn; None where there is no end of them."""
        own = self.sampler.size(self.whole) if self.rounds == 1 else None
        return self.whole.size() if own is None else own

    def exhausted(self) -> str | None:
        """What there is to say when fewer settings can be drawn than there are trials; else None."""
        size = self.size()
        if size is None or size >= self.trials:
            return None
        what = "space" if size == self.whole.size() else self.sampler.name
        return f"the {what} has {size} settings: each is trained once, which makes {size} trials, not {self.trials}"

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
        if self.rounds > 1 and self.trials < (least := LEAST * self.rounds):
            message = f"{self.rounds} rounds need at least {least} trials, {LEAST} each; there are {self.trials}"
            raise reject("rounds", message)
        return self
