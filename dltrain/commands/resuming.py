"""What may differ when a run is continued, and what has to be said of it: settings, device, versions, threads, data."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dltrain.commands.failures import resume_command
from dltrain.config import ConfigError
from dltrain.engine.decisions import pick_device, threads_of_environment
from dltrain.errors import RunError
from dltrain.experiment.experiment import Experiment
from dltrain.runs.environment import versions
from dltrain.runs.run import Run

PLACES = ("data.root", "data.path", "data.cache", "data.download")
"""Where the data is: the fingerprint says whether it is the same."""
SHOWING = ("recorders", "training.log_every", "training.log_gradients", "training.watch", "training.smoothing")
"""What is shown of a training, which does not depend on it."""
MAY_CHANGE = (
    *PLACES, "training.epochs", "training.steps", "training.early_stopping.patience", "training.checkpoint_every",
    *SHOWING,
)  # fmt: skip
"""What may be set anew when a run is continued; nothing that was trained depends on it."""
_WHAT_CAN = f"what can: {', '.join(MAY_CHANGE)}"
DECIDE_BITS = ("torch", "dltrain", "torchvision", "timm", "numpy", "pillow")
"""The packages whose versions a continued run is compared with."""


def continued(
    run: Run, state: dict[str, Any] | None, file: Path | None, overrides: Sequence[str]
) -> tuple[Experiment, Experiment]:
    """The experiment as it goes on, and as it was until now. state, file: of the checkpoint, if there is one.

    Raises RunError when something differs that may not, and ConfigError when an override is wrong.
    """
    require_may_change(overrides, run.path / "experiment.yaml")
    now = Experiment.load(run.path / "experiment.yaml", overrides)
    if state is None:
        return now, Experiment.load(run.path / "experiment.yaml")
    before = Experiment.parse(state["about"]["experiment"], str(file))
    for key in ("epochs", "steps"):
        old, new = getattr(before.training, key), getattr(now.training, key)
        if old is not None and new is not None and new < old:  # which would compress its schedule too
            raise RunError(f"a run can become longer, not shorter: `training.{key}` of this one is {old:g}")
    for key in _differing(_fixed(before), _fixed(now)):
        what = f"{run.path / 'experiment.yaml'} is not what the run began with, such as `{key}`"
        raise RunError(f"{what}: start a new run with it\n{_WHAT_CAN}")
    return now, before


def require_may_change(overrides: Sequence[str], file: Path) -> None:
    """Raise RunError for an override of what may not change when trainings go on. file: their experiment."""
    for text in overrides:
        key = text.partition("=")[0].strip()
        if key not in MAY_CHANGE and not key.startswith(("recorders.", "training.watch.")):
            again = f"dltrain fit {shlex.quote(str(file))} {text}"
            raise RunError(f"`{key}` cannot change when a run is continued; {_WHAT_CAN}\nwith other settings: {again}")


def is_of(run: Run, about: dict[str, Any]) -> bool:
    """Whether a checkpoint is of the training that the run's experiment.yaml describes. about: what it says of it."""
    try:
        own = Experiment.load(run.path / "experiment.yaml")
        return _fixed(own) == _fixed(Experiment.parse(about["experiment"], "checkpoint"))
    except ConfigError:
        return False


def where_it_lies_now(run: Run, experiment: Experiment) -> Experiment:
    """A checkpoint's experiment with the data where the run's experiment.yaml says that it is, when it has moved."""
    try:
        own = Experiment.load(run.path / "experiment.yaml")
    except ConfigError:
        return experiment
    if _fixed(own) != _fixed(experiment):
        return experiment
    there, here = experiment.model_dump(mode="json"), own.model_dump(mode="json")
    moved = [f"{key}={json.dumps(_at(here, key))}" for key in PLACES if _at(here, key) != _at(there, key)]
    return Experiment.parse(experiment.dump(), "checkpoint", moved) if moved else experiment


def changed(before: Experiment, now: Experiment) -> dict[str, list[Any]]:
    """Old and new value by dotted key."""
    one, other = before.model_dump(mode="json"), now.model_dump(mode="json")
    return {key: [_at(one, key), _at(other, key)] for key in _differing(one, other)}


def extension(before: int, now: int, lr: float, last_lr: float | None) -> str:
    """What a longer training means. before, now: its steps. lr: of the next step; last_lr: of the last epoch."""
    last = f", after {last_lr:.3g}" if last_lr is not None else ""
    ends = f"the training ends at step {now:,} instead of {before:,}"
    stays = "what was trained stays, and the schedule is stretched over the whole"
    return f"{ends}: {stays}; the learning rate goes on with {lr:.3g}{last}"


def device_of(run: Run, begun: dict[str, Any]) -> str:
    """The device that the run began on. Raises RunError when this machine has none such."""
    device: str = begun.get("decisions", {}).get("device", {}).get("value", "auto")
    try:
        pick_device(device)
    except ValueError as error:
        other = str(pick_device("auto")).partition(":")[0]
        command = f"{resume_command(run, begun.get('plugins', {}))} --device {other}"
        raise RunError(
            f"the run began on {device}: {error}\nto continue it here, with other last digits: {command}"
        ) from None
    return device


def differences(
    run: Run, begun: dict[str, Any], plugins: dict[str, str], device: str | None, devices: int
) -> Iterator[str]:
    """What is not as it was when the run began, so that it is not continued bit-exactly. plugins: path -> sha256.

    device, devices: what was asked for. Raises RunError when a plug-in is missing.
    """
    inexact = "it is continued, but not bit-exactly"
    for path, digest in begun.get("plugins", {}).items():
        if path not in plugins and digest not in plugins.values():
            raise RunError(f"the run needs its plug-in: {resume_command(run, begun['plugins'])}")
        if digest not in plugins.values():
            yield f"plug-in {path} has changed since the run began; {inexact}"
    decisions = begun.get("decisions", {})
    before = decisions.get("devices", {}).get("value", 1)
    if before != devices:
        yield f"the run began on {before} devices; on {devices} {inexact}"
    before = decisions.get("device", {}).get("value")
    if device not in (None, "auto", before) and before is not None:
        yield f"the run began on {before}; on {device} {inexact}"
    packages, found = begun.get("packages"), versions()
    was = {**(packages if isinstance(packages, dict) else {}), "python": begun.get("python")}
    other = [name for name in ("python", *DECIDE_BITS) if was.get(name) not in (None, found[name])]
    if other:
        old, new = (", ".join(f"{name} {of[name]}" for name in other) for of in (was, found))
        yield f"the run began with {old}; with {new} {inexact}"
    threads = decisions.get("threads", {}).get("value")
    asked = threads_of_environment()
    if None not in (threads, asked) and devices == 1 and asked != threads:
        yield f"the run began with {threads} threads; with OMP_NUM_THREADS={asked} last digits may differ"


def moved(error: ConfigError, experiment: Experiment, run: Run) -> ConfigError:
    """The error of data that cannot be read, with what to do when it lies elsewhere now."""
    for key in ("root", "path"):
        place = getattr(experiment.data, key, None)
        if isinstance(place, str) and not Path(place).exists():
            note = f"if the data has moved: dltrain resume {shlex.quote(str(run.path))} data.{key}=PLACE"
            return ConfigError([replace(d, notes=(*d.notes, note)) for d in error.diagnostics], str(run.path))
    return error


def resumption(step: int, about: dict[str, Any], changes: dict[str, list[Any]]) -> dict[str, Any]:
    """What environment.json tells of a continuation."""
    decisions = {name: about["decisions"][name]["value"] for name in ("device", "threads")}
    when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    return {"when": when, "step": step, "versions": versions(), **decisions, "changes": changes}


def _fixed(experiment: Experiment) -> dict[str, Any]:
    values = experiment.model_dump(mode="json")
    for key in MAY_CHANGE:
        *parents, last = key.split(".")
        place = _at(values, ".".join(parents))
        if isinstance(place, dict):
            place.pop(last, None)
    return values


def _differing(one: Any, other: Any, key: str = "") -> Iterator[str]:
    """The dotted keys whose values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in {**one, **other}:
            yield from _differing(one.get(name), other.get(name), f"{key}.{name}" if key else name)
    elif one != other:
        yield key


def _at(values: Any, key: str) -> Any:
    for name in key.split(".") if key else ():
        values = values.get(name) if isinstance(values, dict) else None
    return values
