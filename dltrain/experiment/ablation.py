"""The parts of an experiment that can be left out, each by a change of its keys, and the file of an ablation.

parts: {model.norm: {model.norm: null}, optimizer: {optimizer: {name: sgd, lr: 0.1, ...}}}
base: base.yaml                           # a path relative to this file
error: 0.05
budget: 24
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from dltrain.config import ConfigError, Diagnostic, NonNegative, Section
from dltrain.config.dump import to_yaml
from dltrain.config.reader import read_file
from dltrain.config.validation import validate
from dltrain.errors import RequestError
from dltrain.experiment.experiment import Experiment
from dltrain.optim.optimizers.sgd import SGD
from dltrain.tasks.base import Tag
from dltrain.tasks.metrics import Watched

ABLATION, BASE = "ablation.yaml", "base.yaml"
"""The files that an ablation goes on by, in its folder."""
PLAIN = Experiment.model_fields["optimizer"].default.model_dump(mode="json")
LISTS = ("augmentation", "penalties")
"""Keys of lists of parts, of which each can be left out alone too."""
OFF: dict[str, Sequence[dict[str, Any]]] = {
    "augmentation": [{"augmentation": []}],
    "initialize_from": [{"initialize_from": None}],
    "model.norm": [{"model.norm": None}],
    "model.activation": [{"model.activation": None}, {"model.activation": "identity"}],
    "model.attention": [{"model.attention": None}],
    "model.dropout": [{"model.dropout": 0}],
    "model.spatial_dropout": [{"model.spatial_dropout": None}],
    "model.drop_path": [{"model.drop_path": None}],
    "model.drop_connect": [{"model.drop_connect": None}],
    "model.drop_block": [{"model.drop_block": None}],
    "loss.label_smoothing": [{"loss.label_smoothing": 0}],
    "penalties": [{"penalties": []}],
    "optimizer": [{"optimizer": PLAIN}],
    "optimizer.momentum": [{"optimizer.momentum": 0}, {"optimizer.momentum": 0, "optimizer.nesterov": False}],
    "optimizer.weight_decay": [{"optimizer.weight_decay": 0}],
    "optimizer.lookahead": [{"optimizer.lookahead": None}],
    "schedule": [{"schedule": "constant"}],
    "schedule.warmup": [{"schedule.warmup": None}],
    "training.average": [{"training.average": None}],
    "training.clip_norm": [{"training.clip_norm": None}],
    "training.progressive_size": [{"training.progressive_size": None}],
}
"""By its dotted key, what leaves a part out: the first of these changes that the experiment allows."""


class Ablation(Section):
    """Of parts of an experiment: does each of them help?"""

    base: str
    """The experiment's file, relative to this one."""
    parts: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    """By the name of each part, the change that leaves it out, by dotted key."""
    metric: Tag | None = None
    """The metric that tells, in the best epoch of each training; null: the one that ranks the task's runs, on the
    validation split."""
    difference: NonNegative = 0.0
    """A part that changes the metric by less makes no difference. 0: none is found to make none."""
    error: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """How probable a wrong answer is at most, of each part."""
    budget: Annotated[int, Field(ge=2)]
    """Trainings in all, those of the base among them."""


@dataclass(frozen=True)
class Asked:
    """An ablation with its experiments. without: by the name of a part, the experiment that lacks it."""

    ablation: Ablation
    base: Experiment
    without: Mapping[str, Experiment]
    watched: Watched

    def repeated(self) -> dict[str, str]:
        """The ablation and its base, by the names of files that stand beside each other."""
        base = to_yaml({"name": self.base.name, **self.base.document.tree})
        return {ABLATION: to_yaml(self.ablation.model_dump(mode="json")), BASE: base}


def asked(base: Experiment, ablation: Ablation) -> Asked:
    """The experiments of an ablation. Raises ConfigError where a change does not fit, or the metric is not there."""
    without = {name: base.override_all(dict(change)) for name, change in ablation.parts.items()}
    task = base.resolved_task
    tag = ablation.metric or f"validation/{task.ranking()[0].name}"
    try:
        watched = task.watched(tag)
    except KeyError:
        names = ", ".join(f"validation/{metric.name}" for metric in task.ranking())
        raise RequestError(f"task `{task.name}` has no metric `{tag}`; it has {names}") from None
    if tag.startswith("validation/") and not base.data.has_validation:
        raise base.error("data", f"`{tag}` needs a validation split, and there is none")
    return Asked(ablation, base, without, watched)


def load_ablation(path: Path) -> Asked:
    """Read the file of an ablation. Raises ConfigError with the mistakes found, at their places."""
    document, subject = read_file(path), str(path)
    if not isinstance(document.tree, Mapping):
        message = "an ablation is a mapping with the keys `base`, `parts` and `budget`"
        raise ConfigError([Diagnostic(message, document.span(()))], subject)
    ablation, problems, _ = validate(Ablation, document)
    problems = [*document.problems, *problems]
    if ablation is None or problems:
        raise ConfigError(problems, subject)
    return asked(Experiment.load(path.parent / ablation.base).without_sweep(), ablation)


def parts_of(experiment: Experiment, names: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """The changes that leave out the parts that an experiment states, or those of some names, which may also be parts
    that are there by default.

    Raises RequestError for a name of no part, and one that is not there; ConfigError for an experiment without parts.
    """
    values, stated = experiment.model_dump(mode="json"), experiment.stated()
    changes = {**OFF, **_each_of_lists(values)}
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name not in changes:
            known = ", ".join(name for name in changes if _value(values, name))
            raise RequestError(f"`{name}` is no part that can be left out; of this experiment these are: {known}")
    found: dict[str, dict[str, Any]] = {}
    for name in chosen or changes:
        there = name not in OFF or _value(values, name)
        if not there or (not chosen and name in OFF and not _value(stated, name)):
            if chosen:
                raise RequestError(f"`{name}` is not there in {experiment.subject}, and cannot be left out")
            continue
        change, why = _fitting(experiment, changes[name])
        if change is not None:
            found[name] = change
        elif chosen:
            raise RequestError(f"`{name}` cannot be left out: {why}")
    if not found:
        known = ", ".join(OFF)
        raise experiment.error("model", "there is nothing to leave out: no part is stated", f"parts are {known}")
    return found


def _fitting(experiment: Experiment, changes: Sequence[dict[str, Any]]) -> tuple[dict[str, Any] | None, str]:
    """The first change that gives another experiment, or why there is none."""
    why = ""
    for change in changes:
        try:
            if experiment.override_all(dict(change)) != experiment:
                return change, ""
            why = why or "the experiment says the same without it"
        except ConfigError as error:
            why = why or error.diagnostics[0].message
    return None, why


def _each_of_lists(values: Mapping[str, Any]) -> dict[str, Sequence[dict[str, Any]]]:
    """For lists of several parts, what leaves out one: by its name, or where several have that, also its place."""
    found: dict[str, Sequence[dict[str, Any]]] = {}
    for key in LISTS:
        parts = values[key]
        names = [str(part["name"]).replace("/", "-") for part in parts]
        for place, name in enumerate(names if len(parts) > 1 else ()):
            single = name if names.count(name) == 1 else f"{name}.{place}"
            found[f"{key}.{single}"] = [{key: parts[:place] + parts[place + 1 :]}]
    return found


def _value(values: Any, key: str) -> Any:
    """What stands at a dotted key of nested values; None where nothing does, or it is off. Plain SGD is no part."""
    for name in key.split("."):
        values = values.get(name) if isinstance(values, Mapping) else None
    if key == "optimizer" and isinstance(values, Mapping) and values.get("name", SGD().name) == SGD().name:
        return None
    return values
