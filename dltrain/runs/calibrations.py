"""The temperature of a checkpoint, kept in a small JSON file beside it: `best.calibration.json` of `best.pt`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from dltrain.errors import RunError
from dltrain.runs.checkpoints import digest_of, write_atomically

FORMAT = 1
COLDEST, HOTTEST = 0.01, 100.0
"""Temperatures between which one is looked for."""
_CLOSED = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_Digest = Annotated[str, Field(min_length=1, max_length=128)]


class CalibrationError(RunError):
    """A calibration that cannot be used, and why."""


@dataclass(frozen=True, config=_CLOSED)
class Measures:
    """nll: mean negative log-likelihood per answer, in nats. ece: expected calibration error, 0 to 1."""

    nll: Annotated[float, Field(ge=0)]
    ece: Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=_CLOSED)
class Calibration:
    """What a network's logits are divided by before they become probabilities (Guo et al. 2017).

    checkpoint: the digest of the file whose network it is. examples, examples_digest: of the split, and what their
    order is known by. fingerprint: of the data. views, share: what was seen of each image. tolerance: of log T. bins:
    of the ECE. before: at temperature 1; after: at this one.
    """

    temperature: Annotated[float, Field(gt=COLDEST, lt=HOTTEST)]
    checkpoint: _Digest
    split: Literal["validation"]
    examples: Annotated[int, Field(ge=1)]
    examples_digest: _Digest
    fingerprint: _Digest
    views: str
    share: Annotated[float, Field(ge=0, le=1)]
    tolerance: Annotated[float, Field(gt=0)]
    bins: Annotated[int, Field(ge=1)]
    before: Measures
    after: Measures

    def told(self) -> str:
        """In a sentence."""
        return (
            f"probabilities are calibrated: logits are divided by a temperature of {self.temperature:.4f}, fitted on "
            f"{self.examples:,} validation examples (NLL {self.before.nll:.4f} -> {self.after.nll:.4f}, "
            f"ECE {self.before.ece:.4f} -> {self.after.ece:.4f})"
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values, ready for JSON."""
        return asdict(self)


def place_of(checkpoint: Path) -> Path:
    """Where the calibration of a checkpoint's file is kept."""
    return checkpoint.with_name(f"{checkpoint.stem}.calibration.json")


def write_calibration(found: Calibration, checkpoint: Path) -> Path:
    """Keep it beside the checkpoint; its file. Raises RunError when it cannot be written."""
    path = place_of(checkpoint)
    try:
        write_atomically(path, (json.dumps({"format": FORMAT, **found.to_dict()}, indent=2) + "\n").encode())
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from None
    return path


def read_calibration(checkpoint: Path) -> Calibration | None:
    """That of a checkpoint; None where there is none.

    Raises CalibrationError for a file that is no calibration, or that of another checkpoint.
    """
    path = place_of(checkpoint)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CalibrationError(f"{path} cannot be read: {error.strerror or error}{_NOTE}") from None
    found = calibration_from(content, str(path))
    if found.checkpoint != digest_of(checkpoint):
        raise CalibrationError(
            f"{path} is of another checkpoint than {checkpoint.name}, which has changed since{_NOTE}"
        )
    return found


def calibration_from(content: bytes, place: str) -> Calibration:
    """What `write_calibration` wrote. place: for messages. Raises CalibrationError for anything else."""
    try:
        values = json.loads(content)
        if not isinstance(values, dict) or (version := values.pop("format", None)) is None:
            raise ValueError("it has no format")
        if version != FORMAT:
            raise ValueError(f"it has format {version!s:.20}, and this version of dltrain reads {FORMAT}")
    except (ValueError, RecursionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CalibrationError(f"{place} is no calibration: {reason}{_NOTE}") from None
    return calibration_of(values, place, _NOTE)


def calibration_of(values: dict[str, Any], place: str, note: str = "") -> Calibration:
    """What `Calibration.to_dict` gave. note: for messages, with a line break before it. Raises CalibrationError."""
    try:
        return _ADAPTER.validate_json(json.dumps(values))  # strict, but for nested values being mappings
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        reason = f"`{key}`: {first['msg']}"[:200]
        raise CalibrationError(f"{place} has no calibration that can be read: {reason}{note}") from None


_ADAPTER = TypeAdapter(Calibration)
_NOTE = "\nfit it anew: dltrain eval RUN --calibrate; or leave it out: --no-calibrate"
