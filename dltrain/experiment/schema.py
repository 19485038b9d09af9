"""The sections of an experiment and their defaults, and where in the YAML file each of them was written."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from pydantic import PrivateAttr, field_validator

from dltrain.config import ConfigError, Diagnostic, NonNegativeInt, PathText, Section, Span, reject
from dltrain.config.document import Document
from dltrain.config.dump import to_yaml
from dltrain.config.merging import written
from dltrain.data.augmentation import Augmentation
from dltrain.data.catalogue import Dataset
from dltrain.data.evaluation import Evaluation
from dltrain.data.types import Splits
from dltrain.errors import Note
from dltrain.experiment.training import InitializeFrom, Moment, Training
from dltrain.models import Model
from dltrain.optim import Gradient, Optimizer, Penalty, Schedule
from dltrain.optim.gradients import Backpropagation
from dltrain.optim.optimizers.sgd import SGD
from dltrain.optim.schedules.cosine import Cosine
from dltrain.runs.recorders.base import Recorder
from dltrain.runs.recorders.tensorboard import TensorBoard
from dltrain.search import Sweep
from dltrain.tasks import Classification, CrossEntropy, Loss, Task


class ExperimentSchema(Section):
    """The keys of a YAML file. `Experiment` adds how files are read and checked."""

    name: str = "experiment"
    """Name of the experiment's folder under the runs folder; by default the file's stem."""
    seed: NonNegativeInt = 0
    """Start of everything random: initial weights, order, augmentation, dropout."""
    data: Dataset
    """The examples and how they are read."""
    augmentation: list[Augmentation] = []
    """Random changes of the training images, in order."""
    model: Model
    """The network."""
    initialize_from: PathText | InitializeFrom | None = None
    """Whose matching weights the training starts from (transfer learning): a run, a checkpoint, a `.safetensors` file
    or another library's state dict; or {path: ..., part: encoder} for one part of it. Rows that are classes are matched
    by the names of these; those of new classes keep their own start."""
    freeze: list[str] = []
    """Parameters that stay as they are: patterns of whole names, such as `encoder.*`. A norm of which nothing learns
    keeps its statistics and works with them. [] for none."""
    unfreeze_at: Moment | None = None
    """When what `freeze` matches begins to learn: {epochs: 3}, or {steps: 500}; null: never."""
    task: Task | None = None
    """What the network learns to answer; null: what the data has targets for, or `reconstruction` with a network that
    puts out what looks like its input."""
    loss: Loss = CrossEntropy()
    """What training minimises."""
    penalties: list[Penalty] = []
    """What keeps the weights small besides the optimizer's weight decay."""
    gradient: Gradient = Backpropagation()
    """How the gradient is found that the optimizer steps along."""
    optimizer: Optimizer = SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    """How gradients change the weights."""
    schedule: Schedule = Cosine()
    """The learning rate over time; the optimizer's `lr` is its peak."""
    training: Training = Training(epochs=10)
    """How long and how to train."""
    evaluation: Evaluation = Evaluation()
    """What the trained network is shown of each image."""
    recorders: list[Recorder] = [TensorBoard()]
    """What shows the training, besides metrics.csv, which is always written."""
    sweep: Sweep | None = None
    """What `dltrain sweep` searches."""

    _document: Document | None = PrivateAttr(default=None)
    _subject: str = PrivateAttr(default="")
    _notes: tuple[Note, ...] = PrivateAttr(default=())

    @field_validator("name")
    @classmethod
    def _usable_name(cls, name: str) -> str:
        if not name.strip() or name[0] in ".- " or name[-1] in ". " or any(c in name for c in '/\\:*?"<>|'):
            raise reject("name", f'`name` becomes a folder, which cannot be called "{name}"')
        if len(name.encode()) > 200 or not name.isprintable():
            raise reject("name", "`name` becomes a folder: at most 200 bytes, without control characters")
        return name

    @property
    def resolved_task(self) -> Task:
        """The task, that which follows from the data where none is given."""
        return self.task or self._usual_task() or Classification()

    def _usual_task(self) -> Task | None:
        return Task.taking(self.data.targets, like_input=self.model.reconstructs)

    def load_data(self, like: str | None = None) -> Splits:
        """The splits, with the targets that the task learns. See `Dataset.load`."""
        return self.data.load(like, self.resolved_task.targets)

    # -- where it comes from

    @property
    def document(self) -> Document:
        """The document that it was read from; made from its fields when it was made in Python."""
        return self._document if self._document is not None else Document(written(self))

    @property
    def subject(self) -> str:
        """The file that messages name."""
        return self._subject

    @property
    def notes(self) -> tuple[Note, ...]:
        """What the overrides changed besides their own keys: dropped options, a compressed schedule."""
        return self._notes

    def comes_from(self, document: Document, subject: str, notes: tuple[Note, ...]) -> None:
        """Keep what it was read from, at the end of reading it."""
        self._document, self._subject, self._notes = document, subject, notes

    def span(self, *path: str | int, key: bool = False) -> Span | None:
        """Where the value (or key) of `path` was written, for diagnostics."""
        return self.document.span(path, key=key)

    def error(self, key: str, message: str, *notes: str) -> ConfigError:
        """The ConfigError for a mistake at a dotted key that only the data or the machine shows."""
        return self.located(ConfigError([Diagnostic(message, notes=notes)]), key)

    def located(self, error: ConfigError, key: str) -> ConfigError:
        """The same mistakes, those without a place now at the dotted `key`, or at the option in it that they name."""
        found = []
        for d in error.diagnostics:
            names = (*key.split("."), *(d.key.split(".") if d.key else []))
            path = tuple(int(name) if name.isdigit() else name for name in names)
            place = self._override_within(path) or self.span(*path) or self.span(*key.split("."))
            found.append(replace(d, where=d.where or place))
        return ConfigError(found, self._subject)

    def _override_within(self, path: tuple[str | int, ...]) -> Span | None:
        """The only override of an option of `path`: what is wrong there is most likely its doing."""
        within = [marks.value for at, marks in self.document.marks.items() if at[: len(path)] == path]
        changes = {span.source: span for span in within if span.line == 0}
        return next(iter(changes.values())) if len(changes) == 1 else None

    def dump(self) -> str:
        """YAML text with every default written out; `fit` on it repeats the run.

        Where a sweep chooses a `.name`, what was stated stands alone: the options of another choice begin with its own
        defaults, and not with those of the choice that was there.
        """
        values = self.model_dump(mode="json")
        for key in self.sweep.space if self.sweep is not None else ():
            root = key.split(".")[0]
            if key.endswith(".name") and root in values:
                stated = self.document.tree.get(root)
                values = {k: v for k, v in values.items() if k != root} | ({root: stated} if stated is not None else {})
        return to_yaml({key: value for key, value in values.items() if key != "sweep" or value is not None})


E = TypeVar("E", bound=ExperimentSchema)
"""The experiment that a caller has: checking returns its own type."""
