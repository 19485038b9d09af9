"""Which experiments can be trained as one program: those that part ways only behind the gradient of a batch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dltrain.experiment.experiment import Experiment

OF_TRAINING = (
    "average", "early_stopping", "clip_norm", "log_every", "log_gradients", "smoothing", "checkpoint_every",
)  # fmt: skip
OWN = (
    "name", "initialize_from", "model.initialization", "loss", "penalties", "optimizer", "schedule", "recorders",
    "sweep", *(f"training.{key}" for key in OF_TRAINING),
)  # fmt: skip
"""What each may have for itself: how its weights start, what its loss is, and what becomes of a gradient."""


def why_not_stacked(experiments: Sequence[Experiment]) -> str | None:
    """Why these experiments cannot be trained as one program, in words; None when nothing in them speaks against it.

    What only the network or the machine shows, `build_stacked` finds.
    """
    first = experiments[0]
    for experiment in experiments:
        if (reason := _alone(experiment)) is not None:
            return reason
    common = _shared(first)
    for experiment in experiments[1:]:
        own = _shared(experiment)
        for key in {**common, **own}:
            if common.get(key) != own.get(key):
                values = " and ".join(json.dumps(each.get(key), ensure_ascii=False) for each in (common, own))
                return f"they differ in `{key}`: {values}"
    return None


def _alone(experiment: Experiment) -> str | None:
    """Why an experiment trains alone, whatever the others are."""
    optimizer, training = experiment.optimizer, experiment.training
    reasons = {
        f"optimizer `{optimizer.name}` evaluates a batch as often as it likes": optimizer.needs_closure,
        "`optimizer.sam` takes two gradients a step": optimizer.sam is not None,
        f"`gradient: {experiment.gradient.name}` makes no backward pass": not experiment.gradient.backward,
        "`training.compile` compiles one network": training.compile is True,
        f"`training.precision: {training.precision}` scales each gradient": training.precision.endswith("float16")
        and not training.precision.endswith("bfloat16"),
        "`training.watch` looks into one network": training.watch is not None,
        "`training.time` times the steps of one training": training.time is not None,
        "`training.threads: probe` times the steps of one training": training.threads == "probe",
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _shared(experiment: Experiment) -> dict[str, Any]:
    """What must be the same in all, by dotted key."""
    values = _flat(experiment.model_dump(mode="json"))
    found = {key: value for key, value in values if not any(f"{key}.".startswith(f"{own}.") for own in OWN)}
    found["loss.name"] = experiment.loss.name
    for number, group in enumerate(experiment.optimizer.groups):  # what learns when decides which norms rest
        for key in ("match", "after", "until", "frozen"):
            found[f"optimizer.groups.{number}.{key}"] = getattr(group, key)
    return found


def _flat(value: Mapping[str, Any], parents: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{parents}{name}.")
        else:
            yield parents + name, inner
