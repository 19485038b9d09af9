"""The kind "tasks": what learning is for. Everything that depends on it is asked of the experiment's task."""

from __future__ import annotations

from typing import Annotated, ClassVar

from dltrain.config import Choice, OneOf
from dltrain.tasks.metrics import SPLITS, Metric, Watched


class Task(Choice):
    """What a model learns to answer.

    metrics: in the order in which they are shown; the loss that training minimises is one of them. ranks: the name of
    the one by which models are compared unless an experiment names another.
    """

    kind: ClassVar[str] = "tasks"
    metrics: ClassVar[tuple[Metric, ...]]
    ranks: ClassVar[str]

    @classmethod
    def tags(cls, *splits: str) -> list[str]:
        """The tags of all metrics of these splits."""
        return [f"{split}/{metric.name}" for split in splits for metric in cls.metrics]

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


Tag = Annotated[str, OneOf(_tags)]
"""A metric of a split: `validation/loss`. The experiment's task must have it."""
ValidationTag = Annotated[str, OneOf(_ranking_tags)]
"""The same of the validation split alone."""
