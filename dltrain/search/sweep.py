"""The section `sweep` of an experiment."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from dltrain.config import Positive, PositiveInt, Section, reject
from dltrain.search.space import Range
from dltrain.tasks.base import ValidationTag


class Sweep(Section):
    """Hyperparameter search on the validation split; the test split takes no part."""

    trials: PositiveInt = 100
    """How many settings to try."""
    epochs: Positive | None = None
    """Epochs of each trial, the schedule compressed to fit; null: as many as training."""
    sampler: Literal["random"] = "random"
    """How settings are drawn: independently at random (Bergstra & Bengio 2012)."""
    metric: ValidationTag | None = None
    """What ranks the trials, at its best epoch; null: what ranks models of the task, such as `validation/accuracy`."""
    space: Annotated[dict[str, Range], Field(min_length=1)]
    """Dotted keys, and for each the values to search: `optimizer.lr: {low: 1e-3, high: 1, log: true}`."""

    def size(self) -> int | None:
        """How many settings there are; None where there is no end of them."""
        sizes = [values.size() for values in self.space.values()]
        return math.prod(size for size in sizes if size is not None) if None not in sizes else None

    def exhausted(self) -> str | None:
        """What there is to say when the space has fewer settings than there are trials; else None."""
        size = self.size()
        if size is None or size >= self.trials:
            return None
        return f"the space has {size} settings: each is trained once, which makes {size} trials, not {self.trials}"

    @field_validator("space", mode="before")
    @classmethod
    def _dotted_keys(cls, space: Any) -> Any:
        for key, values in space.items() if isinstance(space, dict) else ():
            for inner in values if isinstance(values, dict) else ():
                if isinstance(values[inner], dict):
                    raise reject("space", f"the keys of a space are dotted: write `{key}.{inner}`")
        return space
