"""The journal of a sweep as data: damaged lines are cut out before Optuna replays it, and records are checked.

A line is a JSON object: one operation on the study or a trial. Optuna numbers trials by the lines that create them, so
where such a line is damaged another one is put in its place. What was cut is told, and the file as it was is kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dltrain.runs.checkpoints import write_atomically
from dltrain.search import Range, Space
from dltrain.sweeps.records import RunRecord, TrialRecord
from dltrain.tasks.metrics import Watched

CREATE_STUDY, STUDY_NOTE, CREATE_TRIAL, PARAMETER, STATE, REPORT, TRIAL_NOTE = 0, 2, 4, 5, 6, 7, 8
"""Optuna's numbers of the operations that a sweep makes."""
FIELDS: dict[int, dict[str, tuple[type, ...]]] = {
    CREATE_STUDY: {"study_name": (str,), "directions": (list,)},
    STUDY_NOTE: {"study_id": (int,), "user_attr": (dict,)},
    3: {"study_id": (int,), "system_attr": (dict,)},
    CREATE_TRIAL: {"study_id": (int,)},
    PARAMETER: {"trial_id": (int,), "param_name": (str,), "param_value_internal": (int, float), "distribution": (str,)},
    STATE: {"trial_id": (int,), "state": (int,)},
    REPORT: {"trial_id": (int,), "step": (int,), "intermediate_value": (int, float)},
    TRIAL_NOTE: {"trial_id": (int,), "user_attr": (dict,)},
    9: {"trial_id": (int,), "system_attr": (dict,)},
}  # fmt: skip
"""What each operation must tell, and of what type; those of other numbers are not a sweep's."""
STATES = range(5)


def mend(journal: Path, directions: Sequence[int]) -> str | None:
    """Cut what is damaged out of the journal of a sweep; what was done, or None when it is sound.

    directions: of each objective, 1 when the smallest value is best, 2 for the largest. A last line that was only half
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
            kept.append(_line({"op_code": CREATE_STUDY, "study_name": "sweep", "directions": [*directions]}))
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


def record_of(number: int, notes: Mapping[str, Any], space: Space, objectives: Sequence[Watched]) -> TrialRecord | None:
    """What the journal tells of a trial, or None when that is no record of one. A run whose end is not told rightly has
    not ended.

    number: the journal's. notes: those on the trial. objectives: what a run that succeeded has measured.
    """
    try:
        index, values, round_ = notes["index"], json.loads(notes["values"]), notes["round"]
        faults = json.loads(notes.get("faults", "[]"))
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    if any(type(each) is not int or each < 0 for each in (index, round_)):
        return None
    if not isinstance(values, dict) or set(values) - set(space.ranges):
        return None
    if not all(_can_be(space.ranges[key], value) for key, value in values.items()) or not space.is_whole(values):
        return None
    record = TrialRecord(index, number, space.drawn(values), values, round_)
    record.faults += [fault for fault in faults if isinstance(fault, str)] if isinstance(faults, list) else []
    for name, note in notes.items():
        kind, _, place = name.partition(" ")
        if kind == "run" and place.isdecimal() and (run := _run_of(note, objectives)) is not None:
            record.runs[int(place)] = run
        elif kind == "cost" and place.isdecimal() and isinstance(note, float):
            record.costs[int(place)] = note
    return record


def _run_of(note: Any, objectives: Sequence[Watched]) -> RunRecord | None:
    try:
        run = RunRecord.model_validate_json(note)
    except (TypeError, ValueError, RecursionError, ValidationError):
        return None
    if (run.metrics is None) != (run.state == "failed"):
        return None
    if run.metrics is not None and any(each.tag not in run.metrics for each in objectives):
        return None
    return run


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
