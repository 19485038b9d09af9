"""From files and overrides to checked sections: `extends`, `key=value`, compressed schedules, and all mistakes at once.

What a sweep searches is checked afterwards, by trying: see `spaces`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from dltrain.config import ConfigError, Diagnostic, expanded
from dltrain.config.document import Document
from dltrain.config.merging import completed, lay
from dltrain.config.overrides import Override, apply_all
from dltrain.config.reader import missing, neighbours, read_file
from dltrain.config.validation import validate
from dltrain.errors import Note
from dltrain.experiment.rules import problems_between_sections
from dltrain.experiment.schema import E, ExperimentSchema
from dltrain.experiment.training import Training
from dltrain.optim import Schedule
from dltrain.tasks import Loss


def read_with_parents(path: Path, seen: tuple[Path, ...] = ()) -> Document:
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
    return lay(ExperimentSchema, read_with_parents(target, chain), (), document.without(("extends",)))


def checked(
    cls: type[E], document: Document, subject: str, stem: str, overrides: Iterable[Override]
) -> tuple[E | None, list[Diagnostic]]:
    """The experiment in a document under overrides, and every mistake but those of what its sweep searches.

    With mistakes it is the part that is sound, as far as there is one, with stand-ins for the rest.
    """
    source, notes = _override_all(cls, document, overrides)
    document = _complete(cls, source, stem)
    experiment, problems, wrong = validate(cls, document)
    problems = [*document.problems, *problems]
    if experiment is None and isinstance(document.tree, dict):
        experiment, wrong = _sound_part(cls, document.tree, wrong)
    if experiment is not None:
        found: dict[str, Any] = {"task": experiment.resolved_task}  # a checkpoint must not ask the data
        if "loss" not in experiment.model_fields_set:
            found["loss"] = _usual_loss(experiment)
        experiment = experiment.model_copy(update=found)
        experiment.comes_from(source, subject, tuple(notes))
        problems += problems_between_sections(experiment, wrong)
    return experiment, problems


def _usual_loss(experiment: ExperimentSchema) -> Loss:
    """The model's own, where the task gives what it takes, else the task's."""
    task, own = experiment.resolved_task, experiment.model.default_loss()
    return own if own is not None and issubclass(task.outputs, own.taken) else task.default_loss()


def attempt(experiment: E, values: dict[str, Any]) -> tuple[list[Diagnostic], E | None]:
    """What would be wrong without the sweep and with dotted keys set, and the experiment when nothing would."""
    changes = [Override.of(key, value) for key, value in values.items()]
    document = experiment.document.without(("sweep",))
    found, problems = checked(type(experiment), document, experiment.subject, experiment.name, changes)
    return ConfigError(problems).diagnostics, None if problems else found


def _complete(cls: type[ExperimentSchema], document: Document, stem: str) -> Document:
    """`document` with its name, and with the default choice under a mapping that names none: `optimizer: {lr: 0.2}`."""
    if not isinstance(document.tree, dict):
        return document
    if "extends" in document.tree:  # of text without a file, such as a checkpoint's
        problem = Diagnostic("`extends` works only in a file", document.span(("extends",), key=True))
        document = replace(document.without(("extends",)), problems=[*document.problems, problem])
    name = stem.encode("utf-8", "replace").decode()
    return replace(document, tree={"name": name, **completed(cls, document.tree)})


def _sound_part(cls: type[E], tree: dict[str, Any], wrong: set[str]) -> tuple[E | None, set[str]]:
    """The experiment with stand-ins for the `wrong` keys of its root, and which fields these are."""
    if wrong - set(cls.model_fields):  # a misspelt key: what it stands for is not known
        wrong = wrong | (set(cls.model_fields) - set(tree))
    sound = {"name": "stand-in", "data": "digits", "model": "mlp"}
    sound |= {key: value for key, value in tree.items() if key not in wrong}
    return validate(cls, Document(sound))[0], wrong


def _override_all(
    cls: type[ExperimentSchema], document: Document, overrides: Iterable[Override]
) -> tuple[Document, list[Note]]:
    """`document` with the overrides applied, and notes on what that changed besides."""
    before, overrides = document, list(overrides)
    if not isinstance(document.tree, dict) or not overrides:
        return document, []
    document, notes = apply_all(cls, document, overrides)
    if not any(override.key.split(".")[0] == "schedule" for override in overrides):
        document, more = _compress(cls, before.tree, document)
        notes += more
    return document, notes


def _compress(cls: type[ExperimentSchema], before: dict[str, Any], document: Document) -> tuple[Document, list[Note]]:
    """Where the training became shorter, shorten the schedule's times in proportion."""
    try:
        schedule = Schedule.parse(completed(cls, document.tree)["schedule"])
        (unit, old), (new_unit, new) = _length(before), _length(document.tree)
    except (KeyError, TypeError, ValidationError, PydanticCustomError):  # no schedule, or a mistake told elsewhere
        return document, []
    assert isinstance(schedule, Schedule)
    if unit != new_unit and schedule.compressed(0.5) != schedule:
        text = f"the schedule keeps its times: the training was in {unit} and is now in {new_unit}"
        return document, [Note("warning", "not_compressed", text)]
    if unit != new_unit or new >= old or (shorter := schedule.compressed(new / old)) == schedule:
        return document, []
    override = Override.of("schedule", shorter)
    note = Note("warning", "compressed", f"the schedule is compressed with the training, {old:g} -> {new:g} {unit}")
    return lay(cls, document, ("schedule",), override.at(("schedule",)), whole=True), [note]


def _length(tree: dict[str, Any]) -> tuple[str, float]:
    """The training length that a document states, or the default. Raises ValidationError when it is wrong."""
    training = Training.model_validate(tree.get("training", {}))
    if training.seconds is not None:
        return "seconds", training.seconds
    return ("steps", training.steps) if training.steps is not None else ("epochs", training.epochs or 0)
