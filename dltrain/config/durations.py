"""Lengths of time as a person writes them: `2h`, `1h30m`."""

from __future__ import annotations

import json
import math
import re

from dltrain.config.section import reject

UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
"""Seconds."""


def seconds_of(time: float | str) -> float:
    """`1h30m` or a number as seconds; 0 for what is no time."""
    if not isinstance(time, str):
        return time
    parts = re.findall(r"(\d+(?:\.\d+)?) *([dhms])", time, re.ASCII)
    whole = re.fullmatch(r"(?: *\d+(?:\.\d+)? *[dhms])+ *", time, re.ASCII)
    return sum(float(number) * UNITS[unit] for number, unit in parts) if whole else 0.0


def require_time(key: str, time: float | str | None) -> float | str | None:
    """`time`, after making sure that it is one. key: the option that it is written at."""
    if time is not None and not 0 < seconds_of(time) < math.inf:
        text = json.dumps(time, ensure_ascii=False)
        name = key.rpartition(".")[2]
        raise reject(name, f"`{key}` must be like 2h, 90m or 1h30m, or a number of seconds, not {text}")
    return time
