"""What an exported file says of itself: plain values, as texts by name, that any program can read. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dltrain.errors import RunError

FORMAT = 1
OWN, EXPERIMENT, CLASSES = "dltrain", "dltrain.experiment", "classes"
"""The names of the texts: what is in this file, the experiment's YAML, and the names of classes, labels or numbers as a
JSON list."""


class ForeignError(RunError):
    """A file that is no export of ours."""


@dataclass(frozen=True)
class Inputs:
    """What a file takes. kind: images, (N, H, W, channels) uint8 of any size, which it brings to height x width; or
    rows, `numbers` (N, F) float64 and `categories` (N, K) words, in the order of these columns.

    white, max_pixels: as in `data.types.Canvas`. features: of rows, how each column becomes numbers.
    """

    kind: str
    channels: int = 0
    height: int = 0
    width: int = 0
    white: int | None = None
    max_pixels: int = 0
    features: list[dict[str, Any]] = field(default_factory=list)

    @property
    def numbers(self) -> list[str]:
        """The columns of numbers."""
        return [each["column"] for each in self.features if each["categories"] is None]

    @property
    def categories(self) -> list[str]:
        """The columns of words."""
        return [each["column"] for each in self.features if each["categories"] is not None]


@dataclass(frozen=True)
class About:
    """What a file holds: the resolved experiment as YAML, what is learned, what goes in and what comes out.

    target: as `TargetSpec.to_dict`. state: of the task, such as thresholds as logits. fingerprint: of the data. step,
    checkpoint: which weights. views: what is seen of each image.
    """

    experiment: str
    task: str
    target: dict[str, Any]
    inputs: Inputs
    outputs: list[str]
    state: dict[str, list[float]]
    fingerprint: str
    checkpoint: str
    step: int
    views: str
    version: str
    calibration: dict[str, Any] | None = None
    """The temperature that the outputs are divided by, `temperature`, and what it was fitted on, if any."""

    @property
    def names(self) -> list[str]:
        """Of the classes, labels or numbers."""
        return list(self.target["names"])

    def to_texts(self) -> dict[str, str]:
        """For the file."""
        values = {"format": FORMAT, **asdict(self)}
        experiment = values.pop("experiment")
        return {
            OWN: json.dumps(values, ensure_ascii=False), EXPERIMENT: experiment,
            CLASSES: json.dumps(self.names, ensure_ascii=False),
        }  # fmt: skip

    @classmethod
    def from_texts(cls, texts: Mapping[str, str], path: str) -> About:
        """What `to_texts` wrote. path: of the file, for messages. Raises ForeignError for anything else."""
        if OWN not in texts or EXPERIMENT not in texts:
            raise ForeignError(f"{path} is not a file that `dltrain export` wrote: it does not say what it was made of")
        try:
            values = json.loads(texts[OWN])
            found = values.pop("format")
            if found != FORMAT:
                raise ForeignError(f"{path} has format {found!s:.20}; this version of dltrain reads format {FORMAT}")
            return TypeAdapter(cls).validate_python({**values, "experiment": texts[EXPERIMENT]})
        except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
            reason = str(error).splitlines()[0][:200]
            raise ForeignError(f"{path} does not say of itself what `dltrain export` writes: {reason}") from None
