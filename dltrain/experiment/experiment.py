"""Experiment: the root section. YAML files and overrides flow in, a checked, frozen experiment comes out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dltrain.config import ConfigError, Diagnostic
from dltrain.config.document import Document
from dltrain.config.overrides import Override
from dltrain.config.reader import read_text
from dltrain.experiment.loading import checked, read_with_parents
from dltrain.experiment.schema import ExperimentSchema
from dltrain.experiment.spaces import check_sweep


class Experiment(ExperimentSchema):
    """Everything that decides a training: the whole content of one YAML file.

    A file may also say `extends: other.yaml`, a path relative to itself: it then changes that experiment.
    """

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[str] = ()) -> Experiment:
        """Read a YAML file and what it extends, apply `key=value` overrides, and check the whole.

        Raises ConfigError with every mistake found.
        """
        path = Path(path)
        return cls._from_text(read_with_parents(path), str(path), overrides)

    @classmethod
    def parse(cls, text: str, name: str = "experiment", overrides: Iterable[str] = ()) -> Experiment:
        """The same from YAML text."""
        return cls._from_text(read_text(text, name), name, overrides)

    @classmethod
    def _from_text(cls, document: Document, origin: str, overrides: Iterable[str]) -> Experiment:
        changes = []
        for text in overrides:
            try:
                changes.append(Override.parse(text))
            except ConfigError as error:
                document.problems += error.diagnostics
        return cls._overridden(document, origin, Path(origin).stem, changes)

    def override(self, key: str, value: Any) -> Experiment:
        """A copy with the dotted `key` set to `value`, validated again."""
        return self.override_all({key: value})

    def override_all(self, values: dict[str, Any]) -> Experiment:
        """A copy with several dotted keys set."""
        changes = [Override.of(key, value) for key, value in values.items()]
        return self._overridden(self.document, self.subject, self.name, changes)

    def without_sweep(self) -> Experiment:
        """The same training, with nothing to search."""
        return self._checked(self.document.without(("sweep",)), self.subject, self.name, [])

    @classmethod
    def _checked(cls, document: Document, subject: str, stem: str, overrides: Iterable[Override]) -> Experiment:
        experiment, problems = checked(cls, document, subject, stem, overrides)
        if experiment is not None and experiment.sweep is not None:
            experiment, more = check_sweep(experiment, experiment.sweep, problems)
            problems += more
        if experiment is None or problems:
            raise ConfigError(problems, subject)
        return experiment

    @classmethod
    def _overridden(cls, document: Document, subject: str, stem: str, overrides: Iterable[Override]) -> Experiment:
        """The checked experiment; a mistake of the file that one override brings about is shown at that override."""
        overrides = list(overrides)
        try:
            return cls._checked(document, subject, stem, overrides)
        except ConfigError as error:
            raise ConfigError([cls._cause(document, stem, overrides, p) for p in error.diagnostics], subject) from None

    @classmethod
    def _cause(cls, document: Document, stem: str, overrides: list[Override], problem: Diagnostic) -> Diagnostic:
        where = problem.where
        if where is None or where.line == 0:  # it stands at an override
            return problem
        for override in overrides:
            others = [other for other in overrides if other is not override]
            try:
                cls._checked(document, "", stem, others)
            except ConfigError as error:
                if any(left.where == where for left in error.diagnostics):
                    continue
            note = f"with what {where} says"
            return replace(problem, where=override.value.marks[()].value, hint="", notes=(*problem.notes, note))
        return problem

    def lasting(self, steps: int) -> Experiment:
        """The same training, of so many steps."""
        return self.settled({"training.steps": steps})

    def settled(self, values: dict[str, Any]) -> Experiment:
        """The same training, with what was left open at some dotted keys written out."""
        experiment = self.override_all(values)
        experiment._notes = self._notes  # that a unit has changed is no news
        return experiment

    def stated(self) -> dict[str, Any]:
        """The settings that the file, what it extends and overrides state, as nested plain values, without the sweep
        and the recorders. What is left to its default is not among them."""
        values = self.model_dump(mode="json", exclude={"sweep", "recorders"})
        stated: dict[str, Any] = _stated(values, self.document.tree)
        return stated

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Experiment) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]


def _stated(values: Any, tree: Any) -> Any:
    """Of nested `values`, those of the keys that a document's tree has: a choice may stand there by its name alone."""
    if not isinstance(values, dict):
        return values
    if isinstance(tree, dict):
        return {key: _stated(value, tree[key]) for key, value in values.items() if key in tree}
    return {"name": tree} if tree == values.get("name") else values
