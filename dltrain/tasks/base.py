"""The kind "tasks": what learning is for. Everything that depends on it is asked of the experiment's task."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from dltrain.config import Choice, OneOf
from dltrain.data.augmentation.base import Mixing
from dltrain.data.targets import TargetSpec
from dltrain.tasks.guess import Guess
from dltrain.tasks.losses import Loss
from dltrain.tasks.metrics import OF_COST, SPLITS, Metric, Watched
from dltrain.tasks.outputs import Output

if TYPE_CHECKING:
    import numpy as np
    import torch

    from dltrain.tasks.impl.base import BuiltTask
    from dltrain.tasks.outcomes import Outcomes


class Task(Choice):
    """What a model learns to answer.

    `targets` are the kinds of targets that it takes: an experiment without a `task` has the first one that takes those
    of its data. `outputs` is the kind of what the network puts out. `metrics` stand in the order in which they are
    shown; one of them is called loss. `ranks` is the name of the one by which models are compared unless an experiment
    names another. `mixing` says in which ways examples may be mixed, so that the mixture of their targets is right.
    `combines_views` says whether answers to several views of an example make one; `confident` whether it knows how sure
    an answer is.
    """

    kind: ClassVar[str] = "tasks"
    targets: ClassVar[tuple[type[TargetSpec], ...]]
    outputs: ClassVar[type[Output]]
    metrics: ClassVar[tuple[Metric, ...]]
    ranks: ClassVar[str]
    combines_views: ClassVar[bool] = True
    mixing: ClassVar[tuple[Mixing, ...]] = ("blend", "paste")
    confident: ClassVar[bool] = True

    @classmethod
    def taking(cls, targets: type[TargetSpec], *, like_input: bool = False) -> Task | None:
        """The task of data with such targets, unless an experiment names another. like_input: whether the network puts
        out what looks like its input."""
        fit = [task for task in _tasks() if issubclass(targets, task.targets) and task.outputs.like_input == like_input]
        names = [(task, name) for task in fit for name in task.names()]
        return names[0][0].model_validate({"name": names[0][1]}) if names else None

    def misfit(self, target: TargetSpec) -> str | None:
        """Why such targets cannot be learned, where the data alone shows it."""
        return None

    def chosen(self, *, validation: bool) -> dict[str, tuple[Any, str]]:
        """What its options `auto` became, and why, for the decisions that a run records. validation: whether there is a
        validation split."""
        return {}

    @abstractmethod
    def default_loss(self) -> Loss:
        """What training minimises where an experiment does not say it."""

    @abstractmethod
    def output(self, target: TargetSpec) -> Output:
        """What the network must put out."""

    @abstractmethod
    def build(
        self, loss: Loss, target: TargetSpec, device: torch.device, *, targets: np.ndarray | None = None,
        auxiliary: float = 0.0, combined: bool = False,
    ) -> BuiltTask:  # fmt: skip
        """The task with what training minimises.

        targets: of the training split, for a loss that depends on them. auxiliary: the weight of the loss of each
        auxiliary head. combined: whether what is measured are answers to several views, or of several networks.
        Raises ConfigError when an option of the loss does not fit the targets.
        """

    @abstractmethod
    def guess(self, split: str, target: TargetSpec, targets: np.ndarray) -> Guess | None:
        """What guessing reaches on a split with these targets; None where nothing can be said."""

    @classmethod
    def outcomes(cls) -> type[Outcomes]:
        """What the table of a measured split tells of every example: by default its loss alone."""
        from dltrain.tasks.outcomes import Outcomes

        return Outcomes

    @classmethod
    def tags(cls, *splits: str) -> list[str]:
        """The tags of all metrics that are measured on these splits."""
        return [
            f"{split}/{metric.name}" for split in splits for metric in cls.metrics
            if metric.in_training or split != "train"
        ]  # fmt: skip

    @classmethod
    def ranking(cls) -> list[Metric]:
        """The metrics, first the one that ranks."""
        return sorted(cls.metrics, key=lambda metric: metric.name != cls.ranks)

    @classmethod
    def watched(cls, tag: str) -> Watched:
        """The metric with a tag such as `validation/loss`. Raises KeyError for one that is not the task's."""
        split, _, name = tag.partition("/")
        metric = {each.name: each for each in cls.metrics}[name]
        return Watched(tag, metric, cls.watched(f"{split}/{metric.tie_break}") if metric.tie_break else None)

    @classmethod
    def objective(cls, tag: str) -> Watched:
        """The same, or what a model costs: `parameters`."""
        return Watched(tag, OF_COST[tag]) if tag in OF_COST else cls.watched(tag)

    @classmethod
    def decisive(cls, stops_by: str | None, *, validation: bool) -> Watched | None:
        """The metric that decides which epoch is best; None where the last one is. stops_by: the tag that early
        stopping watches. validation: whether there is a validation split."""
        ranks = f"validation/{cls.ranks}" if validation else None
        tag = stops_by if stops_by is not None else ranks
        return cls.watched(tag) if tag is not None else None


def _tasks() -> list[type[Task]]:
    return [task for task in Task.catalogue if issubclass(task, Task)]


def _tags() -> list[str]:
    """The tags of every task's metrics."""
    return list(dict.fromkeys(tag for task in _tasks() for tag in task.tags(*SPLITS)))


def _ranking_tags() -> list[str]:
    """Those that can rank trials: of the validation split."""
    names = dict.fromkeys(metric.name for task in _tasks() for metric in task.ranking())
    return [f"validation/{name}" for name in names]


def _objectives() -> list[str]:
    """Those, and what a model costs."""
    return [*_ranking_tags(), *OF_COST]


Tag = Annotated[str, OneOf(_tags)]
"""A metric of a split: `validation/loss`. The experiment's task must have it."""
ValidationTag = Annotated[str, OneOf(_ranking_tags)]
"""The same of the validation split alone."""
Objective = Annotated[str, OneOf(_objectives)]
"""What a search is for: a metric of the validation split, or what a model costs."""
