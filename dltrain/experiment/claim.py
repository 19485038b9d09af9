"""A claim: a YAML file that says of a change to an experiment that it helps, and how that is to be decided.

claim: smoother labels help on digits
base: digits.yaml                         # a path relative to this file
change: {loss.label_smoothing: 0.1}
decide: {metric: validation/accuracy, difference: 0.005, error: 0.05, budget: {runs: 20}}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from dltrain.config import ConfigError, Diagnostic, NonNegative, Section, expanded
from dltrain.config.document import Document
from dltrain.config.dump import to_yaml
from dltrain.config.reader import missing, neighbours, read_file
from dltrain.config.validation import validate
from dltrain.experiment.experiment import Experiment
from dltrain.tasks.base import Tag
from dltrain.tasks.metrics import Watched

CLAIM, BASE = "claim.yaml", "base.yaml"
"""The files of a claim that is asked, in its folder."""


class Budget(Section):
    """What an answer may cost."""

    runs: Annotated[int, Field(ge=2)] = 40
    """Trainings of both sides together: half as many pairs."""


class Decide(Section):
    """How a claim is decided."""

    metric: Tag | None = None
    """The metric that tells, in the best epoch of each training; null: the one that ranks the task's runs, on the
    validation split."""
    difference: NonNegative = 0.0
    """Sides that differ by less are alike: the claim is then false. 0: they never are."""
    error: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """How probable a wrong decision is at most, whenever the test stops."""
    budget: Budget = Budget()
    """What an answer may cost."""


class Claim(Section):
    """Of a change to an experiment: it helps."""

    claim: Annotated[str, Field(min_length=1)]
    """What is claimed, in words."""
    base: str
    """The experiment's file, relative to this one."""
    change: Annotated[dict[str, Any], Field(min_length=1)]
    """What is changed of it, by dotted key: {loss.label_smoothing: 0.1}."""
    decide: Decide = Decide()
    """How it is decided."""


@dataclass(frozen=True)
class Sides:
    """A claim with the experiments of both sides. document: where it was read from. watched: the metric that tells."""

    claim: Claim
    base: Experiment
    changed: Experiment
    watched: Watched
    document: Document
    subject: str

    def error(self, key: str, message: str, *notes: str) -> ConfigError:
        """The ConfigError for a mistake at a dotted key of the claim."""
        return _mistake(self.document, self.subject, tuple(key.split(".")), message, *notes)

    def repeated(self) -> dict[str, str]:
        """The claim and its base, by the names of files that stand beside each other. The base is as it was stated,
        with overrides and without defaults: the change means the same for it."""
        claim = {**self.claim.model_dump(mode="json"), "base": BASE}
        return {CLAIM: to_yaml(claim), BASE: to_yaml({"name": self.base.name, **self.base.document.tree})}


def load_claim(path: Path, overrides: Iterable[str] = ()) -> Sides:
    """Read a claim and both experiments. overrides: `key=value`, of both.

    Raises ConfigError with the mistakes found, at their places.
    """
    document, subject = read_file(path), str(path)
    if not isinstance(document.tree, Mapping):
        message = "a claim is a mapping with the keys `claim`, `base`, `change` and `decide`"
        raise _mistake(document, subject, (), message)
    claim, problems, _ = validate(Claim, document)
    problems = [*document.problems, *problems]
    if claim is None or problems:
        raise ConfigError(problems, subject)
    try:
        file = path.parent / expanded(claim.base)
    except ValueError as error:
        raise _mistake(document, subject, ("base",), str(error)) from None
    if not file.is_file():
        raise _mistake(document, subject, ("base",), f"{missing(file)}: {file}", *neighbours(file))
    base = Experiment.load(file, overrides).without_sweep()
    changed = _changed(base, claim.change, document, subject)
    return Sides(claim, base, changed, _watched(claim, base, changed, document, subject), document, subject)


def _changed(base: Experiment, change: Mapping[str, Any], document: Document, subject: str) -> Experiment:
    try:
        changed = base.override_all(dict(change))
    except ConfigError as whole:
        problems: list[Diagnostic] = []
        for key, value in change.items():
            try:
                base.override(key, value)
            except ConfigError as error:
                where = document.span(("change", key))
                problems += [replace(each, where=where, hint="") for each in error.diagnostics]
        where = document.span(("change",))
        problems = problems or [replace(each, where=where, hint="") for each in whole.diagnostics]
        raise ConfigError(problems, subject) from None
    if changed == base:
        raise _mistake(document, subject, ("change",), "the change changes nothing: the experiment says the same")
    if changed.seed != base.seed:
        raise _mistake(document, subject, ("change", "seed"), "the seed is no change: both sides are trained with many")
    return changed


def _watched(claim: Claim, base: Experiment, changed: Experiment, document: Document, subject: str) -> Watched:
    """The metric that tells, which both sides have."""
    tasks = base.resolved_task, changed.resolved_task
    if tasks[0].name != tasks[1].name:
        message = f"the sides have different tasks, `{tasks[0].name}` and `{tasks[1].name}`, and no metric in common"
        raise _mistake(document, subject, ("change",), message)
    tag = claim.decide.metric or f"validation/{tasks[0].ranking()[0].name}"
    place = ("decide", "metric") if claim.decide.metric else ("base",)
    try:
        watched = tasks[0].watched(tag)
    except KeyError:
        names = ", ".join(f"validation/{metric.name}" for metric in tasks[0].ranking())
        raise _mistake(document, subject, place, f"task `{tasks[0].name}` has no metric `{tag}`", names) from None
    if tag.startswith("validation/"):
        for side in (base, changed):
            if not side.data.has_validation:
                raise _mistake(document, subject, place, f"`{tag}` needs a validation split, and there is none")
    return watched


def _mistake(document: Document, subject: str, path: tuple[str, ...], message: str, *notes: str) -> ConfigError:
    return ConfigError([Diagnostic(message, document.span(path), notes=notes)], subject)
