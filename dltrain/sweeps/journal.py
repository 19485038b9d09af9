"""The journal of a sweep as data: damaged lines are cut out before Optuna replays it, and records are checked.

A line is a JSON object: one operation on the study or a trial. Optuna numbers trials by the lines that create them, so
where such a line is damaged another one is put in its place. What was cut is told, and the file as it was is kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dltrain.runs.checkpoints import write_atomically
from dltrain.search import Range, Space

CREATE_STUDY, STUDY_NOTE, CREATE_TRIAL, PARAMETER, STATE, TRIAL_NOTE = 0, 2, 4, 5, 6, 8
"""Optuna's numbers of the operations that a sweep makes."""
FIELDS: dict[int, dict[str, tuple[type, ...]]] = {
    CREATE_STUDY: {"study_name": (str,), "directions": (list,)},
    STUDY_NOTE: {"study_id": (int,), "user_attr": (dict,)},
    3: {"study_id": (int,), "system_attr": (dict,)},
    CREATE_TRIAL: {"study_id": (int,)},
    PARAMETER: {"trial_id": (int,), "param_name": (str,), "param_value_internal": (int, float), "distribution": (str,)},
    STATE: {"trial_id": (int,), "state": (int,)},
    TRIAL_NOTE: {"trial_id": (int,), "user_attr": (dict,)},
    9: {"trial_id": (int,), "system_attr": (dict,)},
}  # fmt: skip
"""What each operation must tell, and of what type; those of other numbers are not a sweep's."""
STATES = range(5)


class _Outcome(BaseModel):
    """How a trial ended, as it is recorded."""

    model_config = ConfigDict(strict=True, extra="forbid")

    metrics: dict[str, Annotated[float, Field(allow_inf_nan=False)]] | None
    reason: str | None
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


def mend(journal: Path, direction: int) -> str | None:
    """Cut what is damaged out of the journal of a sweep; what was done, or None when it is sound.

    direction: 1 when the smallest value of the metric is best, 2 for the largest. A last line that was only half
    written is cut without a word: the process was killed while it wrote.
    """
    if not journal.exists():
        return None
    data = journal.read_bytes()
    end = data.rfind(b"\n") + 1
    lines = data[:end].split(b"\n")[:-1]
    kept: list[bytes] = []
    cut: list[int] = []
    created = replaced = 0
    for number, line in enumerate(lines, 1):
        operation = _operation(line)
        if operation is None:
            cut.append(number)
            continue
        if not kept and operation["op_code"] != CREATE_STUDY:
            kept.append(_line({"op_code": CREATE_STUDY, "study_name": "sweep", "directions": [direction]}))
        trial = operation.get("trial_id")
        if trial is not None:
            while created <= trial and replaced < len(cut):  # a line that was cut had created it
                kept.append(_line({"op_code": CREATE_TRIAL, "study_id": 0, "datetime_start": "2000-01-01T00:00:00"}))
                created, replaced = created + 1, replaced + 1
            if not 0 <= trial < created:
                cut.append(number)
                continue
        kept.append(line)
        created += operation["op_code"] == CREATE_TRIAL
    if not cut:
        if end < len(data):
            os.truncate(journal, end)
        return None
    original = journal.with_name(f"{journal.name}.damaged")
    write_atomically(original, data)
    write_atomically(journal, b"".join(line + b"\n" for line in kept))
    shown = ", ".join(map(str, cut[:5])) + (f" and {len(cut) - 5} more" if len(cut) > 5 else "")
    what = f"line {shown} is" if len(cut) == 1 else f"lines {shown} are"
    return (
        f"{journal}: {what} damaged and cut out; trials whose end is lost are made again ({original.name}: as it was)"
    )


def outcome_of(notes: Mapping[str, Any], space: Space, metric: str) -> dict[str, Any] | None:
    """The `index`, `values`, `metrics`, `reason` and `seconds` of a trial's record, or None when it is not one.

    metric: what a trial that succeeded has measured.
    """
    index, values = notes.get("index"), values_of(notes, space)
    try:
        outcome = _Outcome.model_validate(json.loads(notes["outcome"])).model_dump()
    except (KeyError, TypeError, ValueError, RecursionError, ValidationError):
        return None
    if type(index) is not int or index < 0 or values is None:
        return None
    if outcome["metrics"] is not None and metric not in outcome["metrics"]:
        return None
    return {"index": index, "values": values, **outcome}


def values_of(notes: Mapping[str, Any], space: Space) -> dict[str, Any] | None:
    """The values of a trial's record, or None when they are not those of a setting."""
    try:
        values = json.loads(notes["values"])
        if set(values) - set(space.ranges):
            return None
        fit = all(_can_be(space.ranges[key], value) for key, value in values.items()) and space.is_whole(values)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None
    return values if fit else None


def _can_be(range_: Range, value: Any) -> bool:
    """Whether a value lies in its range."""
    if range_.choices is not None:
        return value in range_.choices
    assert range_.low is not None and range_.high is not None
    return isinstance(value, (int, float)) and not isinstance(value, bool) and range_.low <= value <= range_.high


def _line(operation: dict[str, Any]) -> bytes:
    return json.dumps({"worker_id": "mended", **operation}, separators=(",", ":")).encode()


def _operation(line: bytes) -> dict[str, Any] | None:
    """What a line of the journal says, or None when it is damaged."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or type(found.get("op_code")) is not int:
        return None
    fields = FIELDS.get(found["op_code"])
    if not isinstance(found.get("worker_id"), str):
        return None
    if fields is None or any(
        not isinstance(found.get(name), kinds) or isinstance(found[name], bool) for name, kinds in fields.items()
    ):
        return None
    if (
        found.get("study_id", 0) != 0
        or found.get("study_name", "sweep") != "sweep"
        or found.get("state", 0) not in STATES
    ):
        return None
    return found
