"""The experiment language: YAML text -> typed sections, with diagnostics that point at the text."""

from typing import Annotated

from pydantic import Field

from dltrain.config.annotations import OneOf
from dltrain.config.diagnostics import ConfigError, Diagnostic, Span, suggest
from dltrain.config.paths import PathText, expanded
from dltrain.config.section import Choice, Section, reject

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
"""0 to 1, both included."""
Fraction = Annotated[float, Field(ge=0, lt=1)]
"""0 to 1, without 1."""

__all__ = [
    "Choice", "ConfigError", "Diagnostic", "Fraction", "NonNegative", "NonNegativeInt", "OneOf",
    "PathText", "Positive", "PositiveInt", "Probability", "Section", "Span", "expanded", "reject", "suggest",
]  # fmt: skip
