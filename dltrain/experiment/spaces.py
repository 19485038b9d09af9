"""What is wrong with the keys and values that a sweep searches, found by trying corners of their space.

The experiment with its checked sweep flows in, mistakes at the searched keys flow out. Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Generic

from dltrain.config import Diagnostic, Span
from dltrain.config.annotations import members
from dltrain.config.document import Document
from dltrain.config.hints import shown
from dltrain.errors import Note
from dltrain.experiment.conditions import conditional, place_of
from dltrain.experiment.loading import attempt
from dltrain.experiment.schema import E, ExperimentSchema
from dltrain.experiment.training import LENGTHS
from dltrain.search import Sweep

MOST = 200
"""Settings that are tried at most."""
Example = tuple[tuple[str | int, ...], Any]
"""A value, and the place in its range that gives it."""


def check_sweep(experiment: E, sweep: Sweep, known: list[Diagnostic]) -> tuple[E, list[Diagnostic]]:
    """The experiment with ranges of the type of their keys and a metric that ranks, and the mistakes of its sweep's
    keys and values; `known` is wrong without them."""
    sweep = conditional(type(experiment), experiment.document, sweep)
    sweep = _typed(type(experiment), experiment.document, sweep)
    if sweep.metric is None:
        sweep = sweep.model_copy(update={"metric": f"validation/{experiment.resolved_task.ranks}"})
    experiment = experiment.model_copy(update={"sweep": sweep})
    refused = {key: _refusal(experiment, sweep, key) for key in sweep.space}
    found = [problem for problem in refused.values() if problem is not None]
    if refusal := sweep.sampler.refusal(sweep.whole):
        found.append(Diagnostic(refusal, experiment.span("sweep", "sampler")))
    elif len(sweep.metrics) > 1 and not sweep.sampler.several_objectives:
        message = f"`{sweep.sampler.name}` searches for one metric, and `sweep.metric` has {len(sweep.metrics)}"
        notes = ("`tpe` and `gp` search for several",)
        found.append(Diagnostic(message, experiment.span("sweep", "sampler"), notes=notes))
    examples = {key: sweep.space[key].examples() for key, problem in refused.items() if problem is None}
    if examples:
        trials = _Trials(experiment, sweep, examples, {(problem.message, problem.where) for problem in known})
        found += trials.problems()
    return experiment, found


def _typed(cls: type[ExperimentSchema], document: Document, sweep: Sweep) -> Sweep:
    """The sweep with ranges of the type of their keys: between the integers 0 and 1, a rate has fractions."""
    document = document.without(("sweep",))
    first = {key: values.examples()[0][1] for key, values in sweep.space.items()}
    space = dict(sweep.space)
    for key, values in space.items():
        if values.choices is not None:
            continue
        place = place_of(cls, document, sweep.whole.taking(key, first), key)
        types = members(place.annotation) if place is not None else []
        if float in types and int not in types:
            space[key] = values.as_floats()
    return sweep.model_copy(update={"space": space})


def _refusal(experiment: ExperimentSchema, sweep: Sweep, key: str) -> Diagnostic | None:
    """Why a key cannot be searched at all, or None."""
    where = experiment.span("sweep", "space", key, key=True)
    if key.split(".")[0] in ("sweep", "name"):
        return Diagnostic(f"`{key}` is no hyperparameter", where)
    if key in ("data", *(f"data.{option}" for option in ("name", "root", "path", "test", "validation"))):
        return Diagnostic(f"`{key}` cannot be searched: trials are compared on the same validation split", where)
    if key == "seed" and sweep.repeats > 1:
        return Diagnostic("`seed` cannot be searched: `sweep.repeats` trains each setting with several seeds", where)
    if key.split(".")[0] == "task":
        return Diagnostic(f"`{key}` cannot be searched: trials are compared by a metric of one task", where)
    if sweep.epochs is not None:
        for index, choice in enumerate(sweep.space[key].choices or [] if key == "training" else []):
            if lengths := [f"training.{unit}" for unit in LENGTHS if unit in dict(_mapping(choice))]:
                key, where = lengths[0], experiment.span("sweep", "space", "training", "choices", index)
        if key in [f"training.{unit}" for unit in LENGTHS]:
            return Diagnostic(f"`{key}` cannot be searched: `sweep.epochs` is the length of every trial", where)
    return None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def corners(examples: dict[str, list[Example]]) -> Iterator[dict[str, Example]]:
    """Settings that hold each example of each key, and each pair of examples of two keys, in few settings: every key at
    its first example, then one key at another, then those pairs that are left."""
    first = {key: found[0] for key, found in examples.items()}
    yield first
    for key, found in examples.items():
        yield from ({**first, key: example} for example in found[1:])
    places = {key: range(1, len(found)) for key, found in examples.items()}
    left = {((a, i), (b, j)): None for a, b in combinations(examples, 2) for i in places[a] for j in places[b]}
    while left:
        row = dict(next(iter(left)))
        for key in examples:
            if key not in row and places[key]:
                row[key] = max(
                    places[key], key=lambda place: sum(_pair(examples, (key, place), o) in left for o in row.items())
                )
        for one, other in combinations(row.items(), 2):
            left.pop(_pair(examples, one, other), None)
        yield {key: found[row.get(key, 0)] for key, found in examples.items()}


def _pair(
    examples: dict[str, list[Example]], one: tuple[str, int], other: tuple[str, int]
) -> tuple[tuple[str, int], tuple[str, int]]:
    order = list(examples)
    return (one, other) if order.index(one[0]) < order.index(other[0]) else (other, one)


@dataclass
class _Trials(Generic[E]):
    """Tries settings, and puts what is wrong with them at the searched keys: one mistake a key."""

    experiment: E
    sweep: Sweep
    examples: dict[str, list[Example]]
    known: set[tuple[str, Span | None]]
    found: dict[str, Diagnostic] = field(default_factory=dict)

    def problems(self) -> Iterator[Diagnostic]:
        """The mistakes in at most `MOST` corners of the space."""
        told: set[Span | None] = set()
        tried: set[str] = set()  # corners that differ only in keys that take no part are one
        alone: dict[str, list[tuple[Any, E]]] = {}
        first = {key: found[0][1] for key, found in self.examples.items()}
        for _, row in zip(range(MOST), corners(self.examples), strict=False):
            values = self.sweep.whole.taking_part({key: value for key, (_, value) in row.items()})
            row = {key: row[key] for key in values}
            if (places := repr(list(row.items()))) in tried:
                continue
            tried.add(places)
            problems, notes, trial = self.attempt(values)
            for problem in problems:
                key = self.quoted(problem)
                if key is None and problem.where in told:  # of the file, and blamed on a key already
                    continue
                told.add(problem.where)
                self.blame(key or self.cause(problem, values), problem, row)
            for note in (note for note in notes if note.code == "dropped"):
                self.dropped(note, row)
            changed = [key for key in values if values[key] is not first[key]]
            if trial is not None:
                for key in changed if len(changed) == 1 else values if not changed else ():
                    self.same(key, row[key], trial, alone.setdefault(key, []))
        if not self.found and self.sweep.epochs is not None:
            yield from self.too_short(first)
        yield from self.found.values()

    def attempt(self, values: dict[str, Any]) -> tuple[list[Diagnostic], tuple[Note, ...], E | None]:
        """What is wrong with a setting, notes on it, and its experiment when nothing is. Keys that do not take part in
        it are left out."""
        problems, trial = attempt(self.experiment, self.sweep.whole.taking_part(values))
        new = [problem for problem in problems if (problem.message, problem.where) not in self.known]
        return new, trial.notes if trial is not None else (), trial

    def quoted(self, problem: Diagnostic) -> str | None:
        """The searched key whose value a problem quotes."""
        source = problem.where.source if problem.where is not None else ""
        return next((key for key in self.examples if source.startswith(f"{key}=")), None)

    def cause(self, problem: Diagnostic, values: dict[str, Any]) -> str:
        """The searched key that brings about a problem of the file: with another value of it, or without it, there is
        none."""

        def remains(changed: dict[str, Any]) -> bool:
            return any(other.where == problem.where for other in self.attempt(changed)[0])

        for key in values:
            found = self.examples[key]
            others = [{**values, key: value} for _, value in found if value is not values[key]]
            without = {other: value for other, value in values.items() if other != key}
            if not all(map(remains, others)) or not remains(without):
                return key
        return next(iter(values))

    def blame(self, key: str, problem: Diagnostic, row: dict[str, Example]) -> None:
        """Put a problem of a trial at the searched key, or at its value."""
        if key in self.found:
            return
        place, value = row[key]
        name = self.experiment.span("sweep", "space", key, key=True)
        where, quoted = self.experiment.span("sweep", "space", key, *place), problem.where
        if quoted is None or not quoted.source.startswith(f"{key}="):
            problem = replace(problem, message=f"`{key}` cannot be {_text(value)}: {problem.message}")
        elif place == ("step",):
            problem = replace(problem, hint="write an integer")
        elif self.sweep.space[key].choices is None and not self.takes_numbers(key):
            problem = replace(problem, hint="write `choices: [...]`")
        elif quoted.column <= len(key) and name is not None:
            length = min(quoted.length, len(key) - quoted.column + 1)
            where = replace(name, column=name.column + quoted.column - 1, length=length)
        notes = tuple(problem.notes)
        if len(row) > 1 and not self.attempt({key: value})[0]:  # it is right alone
            others = [f"`{other}: {_text(value)}`" for other, (_, value) in row.items() if other != key]
            notes = (*notes, f"in a trial with {', '.join(others[:4])}{' and more' if len(others) > 4 else ''}")
        self.found[key] = replace(problem, where=where, notes=notes)

    def takes_numbers(self, key: str) -> bool:
        """Whether a key can be a number, as far as that is known."""
        others = {other: found[0][1] for other, found in self.examples.items() if other != key}
        document = self.experiment.document.without(("sweep",))
        place = place_of(type(self.experiment), document, self.sweep.whole.taking(key, others), key)
        return place is None or not {int, float, Any}.isdisjoint(members(place.annotation))

    def dropped(self, note: Note, row: dict[str, Example]) -> None:
        """A choice of a `.name` that rejects an option which is set, and not searched as well."""
        if note.key in self.sweep.space:
            return
        for key, (place, value) in row.items():
            if key.endswith(".name") and note.key.startswith(key.removesuffix("name")) and key not in self.found:
                message = f"`{key}` cannot be searched: with `{value}`, {note.text}"
                where = self.experiment.span("sweep", "space", key, *place)
                notes = ("options that not every choice has must not be set",)
                self.found[key] = Diagnostic(message, where, notes=notes)

    def same(self, key: str, example: Example, trial: E, before: list[tuple[Any, E]]) -> None:
        """Two choices that are written differently and mean the same."""
        place, value = example
        if twin := [other for other, experiment in before if experiment == trial]:
            message = f"`{key}`: {_text(value)} is the same setting as {_text(twin[0])}"
            self.found.setdefault(key, Diagnostic(message, self.experiment.span("sweep", "space", key, *place)))
        before.append((value, trial))

    def too_short(self, first: dict[str, Any]) -> Iterator[Diagnostic]:
        """What does not fit into a trial of `sweep.epochs`, whatever is searched."""
        trial = self.attempt(first)[2]
        if trial is None or trial.training.steps is not None:
            return
        where = self.experiment.span("sweep", "epochs")
        for problem in attempt(trial, {"training.epochs": self.sweep.epochs})[0]:
            yield replace(problem, message=f"in a trial of `sweep.epochs`: {problem.message}", where=where)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_text(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return value if isinstance(value, str) else shown(value)
