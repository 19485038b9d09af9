"""Experiment: the root section. YAML files and overrides flow in, a checked, frozen experiment comes out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from dltrain.config import ConfigError, Diagnostic, NonNegativeInt, PathText, Section, Span, expanded, reject
from dltrain.config.annotations import members
from dltrain.config.document import Document
from dltrain.config.dump import to_yaml
from dltrain.config.overrides import Override, apply_all, completed, lay, resolve, written
from dltrain.config.reader import missing, neighbours, read_file, read_text
from dltrain.config.validation import Place, validate
from dltrain.data.augmentation import Augmentation
from dltrain.data.datasets import Dataset
from dltrain.data.evaluation import Evaluation
from dltrain.experiment.rules import problems_between_sections
from dltrain.experiment.spaces import problems_of_sweep
from dltrain.experiment.training import Sweep, Training
from dltrain.models import Model
from dltrain.optim import Optimizer, Penalty, Schedule
from dltrain.optim.optimizers.sgd import SGD
from dltrain.optim.schedules.cosine import Cosine
from dltrain.tasks.losses import CrossEntropy, Loss


class Experiment(Section):
    """Everything that decides a training: the whole content of one YAML file.

    A file may also say `extends: other.yaml`, a path relative to itself: it then changes that experiment.
    """

    name: str = "experiment"
    """Name of the experiment's folder under the runs folder; by default the file's stem."""
    seed: NonNegativeInt = 0
    """Start of everything random: initial weights, order, augmentation, dropout."""
    data: Dataset
    """The images and how they are read."""
    augmentation: list[Augmentation] = []
    """Random changes of the training images, in order."""
    model: Model
    """The network."""
    initialize_from: PathText | None = None
    """A run or checkpoint whose matching weights the training starts from (transfer learning). Rows that are classes
    are matched by the names of these; those of new classes keep their own start."""
    loss: Loss = CrossEntropy()
    """What training minimises."""
    penalties: list[Penalty] = []
    """What keeps the weights small besides the optimizer's weight decay."""
    optimizer: Optimizer = SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    """How gradients change the weights."""
    schedule: Schedule = Cosine()
    """The learning rate over time; the optimizer's `lr` is its peak."""
    training: Training = Training(epochs=10)
    """How long and how to train."""
    evaluation: Evaluation = Evaluation()
    """What the trained network is shown of each image."""
    sweep: Sweep | None = None
    """What `dltrain sweep` searches."""

    _document: Document | None = PrivateAttr(default=None)
    _subject: str = PrivateAttr(default="")
    _notes: tuple[str, ...] = PrivateAttr(default=())

    @field_validator("name")
    @classmethod
    def _usable_name(cls, name: str) -> str:
        if not name.strip() or name[0] in ".- " or name[-1] in ". " or any(c in name for c in '/\\:*?"<>|'):
            raise reject("name", f'`name` becomes a folder, which cannot be called "{name}"')
        if len(name.encode()) > 200 or not name.isprintable():
            raise reject("name", "`name` becomes a folder: at most 200 bytes, without control characters")
        return name

    # -- from YAML

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[str] = ()) -> Experiment:
        """Read a YAML file and what it extends, apply `key=value` overrides, and check the whole.

        Raises ConfigError with every mistake found.
        """
        path = Path(path)
        return cls._from_text(_read_with_parents(path), str(path), overrides)

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
        return self._overridden(self._source(), self._subject, self.name, changes)

    def attempt(self, values: dict[str, Any]) -> tuple[list[Diagnostic], Experiment | None]:
        """What would be wrong without the sweep and with dotted keys set, and the experiment when nothing would."""
        changes = [Override.of(key, value) for key, value in values.items()]
        try:
            return [], self._checked(self._source().without(("sweep",)), self._subject, self.name, changes)
        except ConfigError as error:
            return error.diagnostics, None

    def without_sweep(self) -> Experiment:
        """The same training, with nothing to search."""
        return self._checked(self._source().without(("sweep",)), self._subject, self.name, [])

    @classmethod
    def _checked(cls, document: Document, subject: str, stem: str, overrides: Iterable[Override]) -> Experiment:
        source, notes = _override_all(cls, document, overrides)
        document = _complete(cls, source, stem)
        experiment, problems, wrong = validate(cls, document)
        problems = [*document.problems, *problems]
        if experiment is None and isinstance(document.tree, dict):
            experiment, wrong = _sound_part(cls, document.tree, wrong)
        if experiment is not None:
            experiment._document, experiment._subject, experiment._notes = source, subject, tuple(notes)
            problems += problems_between_sections(experiment, wrong)
            if experiment.sweep is not None:
                experiment = experiment.model_copy(update={"sweep": _typed(cls, source, experiment.sweep)})
                assert experiment.sweep is not None
                problems += problems_of_sweep(experiment, experiment.sweep, list(problems))
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

    def _source(self) -> Document:
        """The document this experiment came from; made from its fields when it was made in Python."""
        return self._document if self._document is not None else Document(written(self))

    def lasting(self, steps: int) -> Experiment:
        """The same training, of so many steps."""
        experiment = self.override("training.steps", steps)
        experiment._notes = self._notes  # that the unit has changed is no news
        return experiment

    def stated(self) -> dict[str, Any]:
        """The settings that the file, what it extends and overrides state, as nested plain values, without the sweep.
        What is left to its default is not among them."""
        values: dict[str, Any] = _stated(self.model_dump(mode="json", exclude={"sweep"}), self._source().tree)
        return values

    @property
    def notes(self) -> tuple[str, ...]:
        """What the overrides changed besides their own keys: dropped options, a compressed schedule."""
        return self._notes

    def span(self, *path: str | int, key: bool = False) -> Span | None:
        """Where the value (or key) of `path` was written, for diagnostics."""
        return self._source().span(path, key=key)

    def error(self, key: str, message: str, *notes: str) -> ConfigError:
        """The ConfigError for a mistake at a dotted key that only the data or the machine shows."""
        return self.located(ConfigError([Diagnostic(message, notes=notes)]), key)

    def located(self, error: ConfigError, key: str) -> ConfigError:
        """The same mistakes, those without a place now at the dotted `key`, or at the option in it that they name."""
        found = []
        for d in error.diagnostics:
            names = (*key.split("."), *(d.key.split(".") if d.key else []))
            path = tuple(int(name) if name.isdigit() else name for name in names)
            found.append(replace(d, where=d.where or self._override_within(path) or self.span(*path)))
        return ConfigError(found, self._subject)

    def _override_within(self, path: tuple[str | int, ...]) -> Span | None:
        """The only override of an option of `path`: what is wrong there is most likely its doing."""
        within = [marks.value for at, marks in self._source().marks.items() if at[: len(path)] == path]
        changes = {span.source: span for span in within if span.line == 0}
        return next(iter(changes.values())) if len(changes) == 1 else None

    def dump(self) -> str:
        """YAML text with every default written out; `fit` on it repeats the run."""
        values = self.model_dump(mode="json")
        return to_yaml({key: value for key, value in values.items() if key != "sweep" or value is not None})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Experiment) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]


def _read_with_parents(path: Path, seen: tuple[Path, ...] = ()) -> Document:
    """The file at `path` merged over the file that its `extends` names, and so on."""
    document = read_file(path)
    if not isinstance(document.tree, dict) or "extends" not in document.tree:
        return document

    def fail(message: str, *notes: str) -> ConfigError:
        return ConfigError([Diagnostic(message, document.span(("extends",)), notes=notes)], str(path))

    parent = document.tree["extends"]
    if not isinstance(parent, str):
        raise fail("`extends` must be the path of one YAML file, relative to this one")
    try:
        target = path.parent / expanded(parent)
    except ValueError as error:
        raise fail(str(error)) from None
    chain = (*seen, path)
    try:
        is_file = target.is_file()
    except (OSError, ValueError):  # a name that no file can have
        is_file = False
    if not is_file:
        raise fail(f"{missing(target)}: {target}", *neighbours(target))
    if any(target.samefile(file) for file in chain):
        raise fail("`extends` goes round in a circle: " + " -> ".join(map(str, (*chain, target))))
    return lay(Experiment, _read_with_parents(target, chain), (), document.without(("extends",)))


def _stated(values: Any, tree: Any) -> Any:
    """Of nested `values`, those of the keys that a document's tree has: a choice may stand there by its name alone."""
    if not isinstance(values, dict):
        return values
    if isinstance(tree, dict):
        return {key: _stated(value, tree[key]) for key, value in values.items() if key in tree}
    return {"name": tree} if tree == values.get("name") else values


def _complete(cls: type[Experiment], document: Document, stem: str) -> Document:
    """`document` with its name, and with the default choice under a mapping that names none: `optimizer: {lr: 0.2}`."""
    if not isinstance(document.tree, dict):
        return document
    if "extends" in document.tree:  # of text without a file, such as a checkpoint's
        problem = Diagnostic("`extends` works only in a file", document.span(("extends",), key=True))
        document = replace(document.without(("extends",)), problems=[*document.problems, problem])
    name = stem.encode("utf-8", "replace").decode()
    return replace(document, tree={"name": name, **completed(cls, document.tree)})


def _typed(cls: type[Experiment], document: Document, sweep: Sweep) -> Sweep:
    """The sweep with ranges of the type of their keys: between the integers 0 and 1, a rate has fractions."""
    first = [Override.of(key, values.examples()[0][1]) for key, values in sweep.space.items()]
    tree = completed(cls, apply_all(cls, document.without(("sweep",)), first)[0].tree)
    space = dict(sweep.space)
    for key, values in space.items():
        place = Place(cls, tree, path := resolve(cls, tree, key))
        types = members(place.annotation) if place.path == path else []
        if values.choices is None and float in types and int not in types:
            space[key] = values.as_floats()
    return sweep.model_copy(update={"space": space})


def _sound_part(cls: type[Experiment], tree: dict[str, Any], wrong: set[str]) -> tuple[Experiment | None, set[str]]:
    """The experiment with stand-ins for the `wrong` keys of its root, and which fields these are."""
    if wrong - set(cls.model_fields):  # a misspelt key: what it stands for is not known
        wrong = wrong | (set(cls.model_fields) - set(tree))
    sound = {"name": "stand-in", "data": "digits", "model": "mlp"}
    sound |= {key: value for key, value in tree.items() if key not in wrong}
    return validate(cls, Document(sound))[0], wrong


def _override_all(
    cls: type[Experiment], document: Document, overrides: Iterable[Override]
) -> tuple[Document, list[str]]:
    """`document` with the overrides applied, and notes on what that changed besides."""
    before, overrides = document, list(overrides)
    if not isinstance(document.tree, dict) or not overrides:
        return document, []
    document, notes = apply_all(cls, document, overrides)
    if not any(override.key.split(".")[0] == "schedule" for override in overrides):
        document, more = _compress(cls, before.tree, document)
        notes += more
    return document, notes


def _compress(cls: type[Experiment], before: dict[str, Any], document: Document) -> tuple[Document, list[str]]:
    """Where the training became shorter, shorten the schedule's times in proportion."""
    try:
        schedule = Schedule.parse(completed(cls, document.tree)["schedule"])
        (unit, old), (new_unit, new) = _length(before), _length(document.tree)
    except (KeyError, TypeError, ValidationError, PydanticCustomError):  # no schedule, or a mistake told elsewhere
        return document, []
    assert isinstance(schedule, Schedule)
    if unit != new_unit and schedule.compressed(0.5) != schedule:
        return document, [f"the schedule keeps its times: the training was in {unit} and is now in {new_unit}"]
    if unit != new_unit or new >= old or (shorter := schedule.compressed(new / old)) == schedule:
        return document, []
    override = Override.of("schedule", shorter)
    note = f"the schedule is compressed with the training, {old:g} -> {new:g} {unit}"
    return lay(cls, document, ("schedule",), override.at(("schedule",)), whole=True), [note]


def _length(tree: dict[str, Any]) -> tuple[str, float]:
    """The training length that a document states, or the default. Raises ValidationError when it is wrong."""
    training = Training.model_validate(tree.get("training", {}))
    if training.seconds is not None:
        return "seconds", training.seconds
    return ("steps", training.steps) if training.steps is not None else ("epochs", training.epochs or 0)
