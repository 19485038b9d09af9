"""Experiment: the root section. YAML files and overrides flow in, a checked, frozen experiment comes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import PrivateAttr, model_validator

from dltrain.config import ConfigError, Diagnostic, NonNegativeInt, Section, Span, reject
from dltrain.config.overrides import parse_override, set_value, value_document
from dltrain.config.source import Document, Marks, Path_, merge, read_file, read_text, scalar
from dltrain.config.validation import Place, validate
from dltrain.data.augmentations import Augmentation
from dltrain.data.datasets import Dataset
from dltrain.losses import CrossEntropy, Loss
from dltrain.models import Model
from dltrain.optim import SGD, Cosine, Optimizer, Schedule
from dltrain.training import Sweep, Training

Change = tuple[Path_, Document]


class Experiment(Section):
    """Everything that decides a training: the whole content of one YAML file."""

    name: str
    """Name of the experiment's folder under the runs folder; by default the file's stem."""
    seed: NonNegativeInt = 0
    """Start of everything random: initial weights, order, augmentation, dropout."""
    data: Dataset
    """The images and how they are read."""
    augmentation: list[Augmentation] = []
    """Random changes of the training images, in order."""
    model: Model
    """The network."""
    initialize_from: str | None = None
    """A run or checkpoint whose matching weights the training starts from (transfer learning)."""
    loss: Loss = CrossEntropy()
    """What training minimises."""
    optimizer: Optimizer = SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    """How gradients change the weights."""
    schedule: Schedule = Cosine()
    """The learning rate over time; the optimizer's `lr` is its peak."""
    training: Training = Training(epochs=10)
    """How long and how to train."""
    sweep: Sweep | None = None
    """What `dltrain sweep` searches."""

    _document: Document | None = PrivateAttr(default=None)
    _subject: str = PrivateAttr(default="")
    _notes: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="before")
    @classmethod
    def _complete_choices(cls, value: Any) -> Any:
        """A mapping without `name` changes options of the default choice: `optimizer: {lr: 0.2}`."""
        if not isinstance(value, dict):
            return value
        for key in ("loss", "optimizer", "schedule"):
            if isinstance(given := value.get(key), dict) and "name" not in given:
                default = cls.model_fields[key].default
                value = {**value, key: {"name": default.name, **default.model_dump(exclude_unset=True), **given}}
        return value

    @model_validator(mode="after")
    def _usable_name(self) -> Experiment:
        if not self.name.strip() or self.name.startswith(".") or any(c in self.name for c in '/\\:*?"<>|\0'):
            raise reject("name", f'`name` becomes a folder, which cannot be called "{self.name}"')
        return self

    # -- from YAML

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[str] = ()) -> Experiment:
        """Read a YAML file and what it extends, apply `key=value` overrides, and check the whole.

        Raises ConfigError with every mistake found.
        """
        path = Path(path)
        return cls._checked(_read_with_parents(path), str(path), path.stem, map(parse_override, overrides))

    @classmethod
    def parse(cls, text: str, name: str = "experiment", overrides: Iterable[str] = ()) -> Experiment:
        """The same from YAML text."""
        return cls._checked(read_text(text, name), name, Path(name).stem, map(parse_override, overrides))

    def override(self, key: str, value: Any) -> Experiment:
        """A copy with the dotted `key` set to `value`, validated again."""
        return self.override_all({key: value})

    def override_all(self, values: dict[str, Any]) -> Experiment:
        """A copy with several dotted keys set."""
        changes = [_change(key, value) for key, value in values.items()]
        return self._checked(self._source(), self._subject, self.name, changes)

    @classmethod
    def _checked(cls, document: Document, subject: str, stem: str, changes: Iterable[Change]) -> Experiment:
        changes = list(changes)
        before = _length(document.tree)
        notes: list[str] = []
        for path, value in changes:
            document, note = _apply(cls, document, path, value, changes)
            notes += note
        if isinstance(document.tree, dict) and "name" not in document.tree:
            document = Document({"name": stem, **document.tree}, document.marks)
        experiment = validate(cls, document, subject)
        document, note = _compress(experiment, document, before, [path for path, _ in changes])
        if note:
            experiment = validate(cls, document, subject)
        experiment._document, experiment._subject, experiment._notes = document, subject, (*notes, *note)
        if problems := experiment._problems():
            raise ConfigError(problems, subject)
        return experiment

    def _source(self) -> Document:
        """The document this experiment came from; made from its fields when it was made in Python."""
        if self._document is not None:
            return self._document
        return Document(self.model_dump(exclude_unset=True, mode="json"))

    def without_sweep(self) -> Experiment:
        """The same training, with nothing to search."""
        return self._checked(_without(self._source(), "sweep"), self._subject, self.name, [])

    @property
    def notes(self) -> tuple[str, ...]:
        """What the overrides changed besides their own keys: dropped options, a compressed schedule."""
        return self._notes

    def span(self, *path: str | int) -> Span | None:
        """Where `path` was written, for diagnostics."""
        return self._document.span(path) if self._document is not None else None

    def error(self, path: str, message: str, *notes: str) -> ConfigError:
        """The ConfigError for a mistake at a dotted key that only the data or the machine shows."""
        return ConfigError([Diagnostic(message, self.span(*path.split(".")), notes=notes)], self._subject)

    def dump(self) -> str:
        """YAML text with every default written out; `fit` on it repeats the run."""
        values = _name_first(self.model_dump(mode="json"))
        if values["sweep"] is None:
            del values["sweep"]
        return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Experiment) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]

    # -- mistakes between fields

    def _problems(self) -> list[Diagnostic]:
        problems = [*self._problems_of_augmentation(), *self._problems_of_time(), *self._problems_of_validation()]
        if self.sweep is not None and not problems:  # every trial would repeat them
            problems += self._problems_of_sweep(self.sweep)
        return problems

    def _problems_of_augmentation(self) -> Iterator[Diagnostic]:
        from dltrain.data.pipeline import check_order

        for index, message in check_order(self.augmentation):
            yield Diagnostic(message, self.span("augmentation", index))
        for index, augmentation in enumerate(self.augmentation):
            if augmentation.needs_soft_targets and not self.loss.soft_targets:
                message = f"`{augmentation.name}` mixes labels, and loss `{self.loss.name}` takes none that are mixed"
                yield Diagnostic(message, self.span("augmentation", index), notes=("use loss `cross_entropy`",))

    def _problems_of_time(self) -> Iterator[Diagnostic]:
        warmup = self.schedule.warmup
        if warmup is None:
            return
        for unit in ("epochs", "steps"):
            long, total = getattr(warmup, unit), getattr(self.training, unit)
            if long is not None and total is not None and long >= total:
                message = f"the warm-up takes {long:g} {unit}, and the whole training only {total:g}"
                yield Diagnostic(message, self.span("schedule", "warmup", unit))

    def _problems_of_validation(self) -> Iterator[Diagnostic]:
        if self.data.has_validation:
            return
        stopping = self.training.early_stopping
        if stopping is not None and stopping.metric.startswith("validation/"):
            message = f"early stopping watches `{stopping.metric}`, and there is no validation split"
            yield Diagnostic(message, self.span("training", "early_stopping"), notes=("set `data.validation: 0.1`",))
        if self.sweep is not None:
            message = "a sweep is judged on the validation split, and there is none"
            yield Diagnostic(message, self.span("sweep"), notes=("set `data.validation: 0.1`",))

    def _problems_of_sweep(self, sweep: Sweep) -> Iterator[Diagnostic]:
        for key, values in sweep.space.items():
            where = self.span("sweep", "space", key)
            if key.split(".")[0] in ("sweep", "name"):
                yield Diagnostic(f"`{key}` is no hyperparameter", where)
                continue
            for value in values.choices if values.choices is not None else (values.low, values.high):
                try:
                    document = _without(self._source(), "sweep")
                    trial = self._checked(document, self._subject, self.name, [_change(key, value)])
                except ConfigError as error:
                    first = error.diagnostics[0]
                    yield Diagnostic(f"`{key}` cannot be {value}: {first.message}", where, first.hint, first.notes)
                    break
                if dropped := [note for note in trial.notes if "dropped" in note]:
                    message = f"`{key}` cannot be searched: with `{value}`, {dropped[0]}"
                    yield Diagnostic(message, where, notes=("options that not every choice has must not be set",))
                    break


def _read_with_parents(path: Path, seen: tuple[Path, ...] = ()) -> Document:
    """The file at `path` merged over the file that its `extends` names, and so on."""
    document = read_file(path)
    if not isinstance(document.tree, dict) or "extends" not in document.tree:
        return document
    where = document.span(("extends",))

    def fail(message: str) -> ConfigError:
        return ConfigError([Diagnostic(message, where)], str(path))

    parent = document.tree["extends"]
    if not isinstance(parent, str):
        raise fail("`extends` must be the path of one YAML file, relative to this one")
    target = path.parent / parent
    chain = (*seen, path.resolve())
    if target.resolve() in chain:
        raise fail(f"`{parent}` extends this file in turn: a circle")
    if not target.is_file():
        raise fail(f"no such file: {target}")
    return merge(_read_with_parents(target, chain), _without(document, "extends"))


def _without(document: Document, key: str) -> Document:
    tree = {k: v for k, v in document.tree.items() if k != key}
    return Document(tree, {p: m for p, m in document.marks.items() if p[:1] != (key,)})


def _change(key: str, value: Any) -> Change:
    path: Path_ = tuple(int(p) if p.isdigit() else p for p in key.split("."))
    if isinstance(value, Section):
        value = value.model_dump(mode="json")
    text = f"{key}={value}"
    return path, value_document(path, value, Span("override", 0, len(key) + 2, max(len(str(value)), 1), text), text)


def _apply(
    cls: type[Experiment], document: Document, path: Path_, value: Document, changes: Sequence[Change]
) -> tuple[Document, list[str]]:
    """`document` with one override applied, and notes on the options that it made void."""
    if not isinstance(document.tree, dict):
        return document, []
    notes: list[str] = []
    overridden = [other for other, _ in changes]
    if path in (("training", "epochs"), ("training", "steps")) and value.tree is not None:
        other = ("training", "steps" if path[1] == "epochs" else "epochs")
        if other not in overridden and other in document.marks:  # the new length replaces the file's
            training = {k: v for k, v in document.tree["training"].items() if k != other[1]}
            marks = {p: m for p, m in document.marks.items() if p != other}
            document = Document({**document.tree, "training": training}, marks)
    if len(path) > 1 and path[-1] == "name" and isinstance(value.tree, str):
        document, notes = _change_name(cls, document, path[:-1], value.tree)
    return set_value(document, path, value), notes


def _change_name(cls: type[Experiment], document: Document, path: Path_, name: str) -> tuple[Document, list[str]]:
    """Keep the options that the choice called `name` has too; say which are dropped."""
    place = Place(cls, document.tree, path)
    tree: Any = document.tree
    for key in path:
        if isinstance(tree, dict):
            tree = tree.get(str(key))
        elif isinstance(tree, list) and isinstance(key, int) and key < len(tree):
            tree = tree[key]
        else:
            return document, []
    entry = next((found for kind in place.kinds() if (found := kind.lookup(name)) is not None), None)
    if entry is None or not isinstance(tree, dict) or tree.get("name") == name:
        return document, []
    dropped = [key for key in tree if key not in entry.model_fields]
    kept = {k: v for k, v in tree.items() if k not in dropped}
    label = ".".join(map(str, path))
    notes = [f"`{label}.{key}` is dropped: `{name}` has no such option" for key in dropped]
    where = document.span(path) or Span(label)
    marks = {p: m for p, m in document.marks.items() if p[: len(path)] == path} or {path: Marks(None, where)}
    return set_value(document, path, Document(kept, {**marks, **_parents(document, path)})), notes


def _parents(document: Document, path: Path_) -> dict[Path_, Marks]:
    here = Span(".".join(map(str, path)))
    return {path[:i]: document.marks.get(path[:i], Marks(None, here)) for i in range(1, len(path) + 1)}


def _length(tree: Any) -> tuple[str, float] | None:
    """The training length that a document states (or its default), with its unit."""
    training = tree.get("training", {}) if isinstance(tree, dict) else None
    if not isinstance(training, dict):
        return ("epochs", 10.0) if training is None else None
    for unit in ("steps", "epochs"):
        value = training.get(unit)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
            return unit, float(value)
    return "epochs", 10.0


def _compress(
    experiment: Experiment, document: Document, before: tuple[str, float] | None, changed: list[Path_]
) -> tuple[Document, list[str]]:
    """When overrides shorten the training, shorten the schedule's times in proportion."""
    after = _length(document.tree)
    lengths_differ = ("training", "epochs") in changed or ("training", "steps") in changed
    if not lengths_differ or before is None or after is None or before[0] != after[0] or after[1] >= before[1]:
        return document, []
    if any(path[0] == "schedule" for path in changed):
        return document, []
    schedule = experiment.schedule.compressed(after[1] / before[1])
    if schedule == experiment.schedule:
        return document, []
    path, value = _change("schedule", schedule.model_dump(exclude_unset=True, mode="json") | {"name": schedule.name})
    note = f"the schedule is compressed with the training, {before[1]:g} -> {after[1]:g} {after[0]}"
    return set_value(document, path, value), [note]


def _name_first(value: Any) -> Any:
    if isinstance(value, dict):
        first = {"name": value["name"]} if "name" in value else {}
        return {**first, **{key: _name_first(inner) for key, inner in value.items() if key != "name"}}
    return [_name_first(item) for item in value] if isinstance(value, list) else value


class _Dumper(yaml.SafeDumper):
    """Writes what our reader reads back: text that looks like a number is quoted."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = None if isinstance(scalar(value), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    short = not any(isinstance(item, (dict, list)) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=short)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)
_Dumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign]
