"""`check --gradients`: a table of how far gradients are from central differences, tensor by tensor."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

from dltrain.console.display import Display
from dltrain.engine.gradient_check import CheckedTensor, check_gradients
from dltrain.experiment.experiment import Experiment


def check_experiment(
    experiment: Experiment, tolerance: float, coordinates: int, display: Display, *, as_json: bool
) -> tuple[str, bool]:
    """The result as text, and whether all gradients are within the tolerance. The display says how far it is."""
    checked: list[CheckedTensor] = []
    for each in check_gradients(experiment, tolerance, coordinates):
        display.waiting(f"gradient {len(checked) + 1}: {each.name}")
        checked.append(each)
    display.stop()
    right = all(each.error <= tolerance for each in checked)
    if as_json:
        return json.dumps(to_dict(experiment, checked, tolerance), indent=2), right
    return "\n".join(table(checked, tolerance)), right


def to_dict(experiment: Experiment, checked: Iterable[CheckedTensor], tolerance: float) -> dict[str, Any]:
    """The same as plain values; what is not finite is null."""
    rows = [
        {
            "name": each.name, "shape": list(each.shape), "checked": each.checked, "kinks": each.kinks,
            "gradient": _finite(each.gradient), "error": _finite(each.error), "passed": each.error <= tolerance,
        }
        for each in checked
    ]  # fmt: skip
    passed = all(row["passed"] for row in rows)
    return {"experiment": experiment.name, "tolerance": tolerance, "passed": passed, "tensors": rows}


def table(checked: list[CheckedTensor], tolerance: float) -> Iterator[str]:
    """A line for each tensor, and what it comes to."""
    width = max([len(each.name) for each in checked] + [9])
    yield f"{'parameter':<{width}}  {'shape':>16}  checked  kinks  gradient  relative error"
    for each in checked:
        shape = "x".join(map(str, each.shape)) or "1"
        wrong = "" if each.error <= tolerance else "  WRONG"
        yield (
            f"{each.name:<{width}}  {shape:>16}  {each.checked:>7}  {each.kinks:>5}  {each.gradient:>8.1e}  "
            f"{each.error:>14.1e}{wrong}"
        )
    bad = sum(not each.error <= tolerance for each in checked)
    verdict = f"{bad} of {len(checked)} are off by more than" if bad else f"all {len(checked)} are right to"
    yield f"{verdict} {tolerance:g} of central differences in float64"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
