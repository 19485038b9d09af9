"""`check`: whether experiments are valid, and with --gradients whether what they train by is right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from dltrain.config import ConfigError
from dltrain.console.streams import print_result, say
from dltrain.experiment.experiment import Experiment


@dataclass(frozen=True)
class GradientCheck:
    """How gradients are checked: see `check_gradients`."""

    tolerance: float
    coordinates: int
    as_json: bool


def check_to_json(files: Sequence[str], overrides: Sequence[str]) -> int:
    """Check each file and print what is found as a JSON list, an object a file; the exit code."""
    found = []
    for file in files:
        try:
            experiment = Experiment.load(file, overrides)
            found.append({"file": file, "ok": True, "errors": [], "notes": [note.text for note in experiment.notes]})
        except ConfigError as error:
            errors = [diagnostic.to_dict() for diagnostic in error.diagnostics]
            found.append({"file": file, "ok": False, "errors": errors, "notes": []})
    print_result(json.dumps(found, ensure_ascii=False))
    return 0 if all(each["ok"] for each in found) else 2


def check_files(files: Sequence[str], overrides: Sequence[str], gradients: GradientCheck | None) -> int:
    """Check each file and say what is found; the exit code: 2 for mistakes, 1 for a wrong gradient, else 0."""
    failed, right = 0, True
    for file in files:
        try:
            experiment = Experiment.load(file, overrides)
            for note in experiment.notes:
                say(f"{file}: {note.text}")
            text, good = (f"{file}: ok", True) if gradients is None else _gradients(file, experiment, gradients)
            right = right and good
            print_result(text)
        except ConfigError as error:
            failed += 1
            say(str(error) + "\n")
    return 2 if failed else 0 if right else 1


def _gradients(file: str, experiment: Experiment, how: GradientCheck) -> tuple[str, bool]:
    from dltrain.commands.check_gradients import check_experiment
    from dltrain.console.display import Display

    text, right = check_experiment(experiment, how.tolerance, how.coordinates, Display(), as_json=how.as_json)
    return text if how.as_json else f"{file}\n{text}", right
