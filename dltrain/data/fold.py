"""The section `data.fold`: which part of a cross-validation a training is."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from dltrain.config import PositiveInt, Section, reject


class Fold(Section):
    """The training part in equal parts, one of which is the validation split. `dltrain fit --folds 5` trains on all."""

    number: PositiveInt
    """Which of them is the validation split, from 1; training takes the others."""
    of: Annotated[int, Field(ge=2)]
    """How many there are. Each has as many examples of every class, within one; copies and groups are not divided."""

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Fold:
        if self.number > self.of:
            raise reject("number", f"`number: {self.number}` is none of {self.of} folds, which count from 1")
        return self
