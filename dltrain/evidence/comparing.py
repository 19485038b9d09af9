"""Two tables of examples -> how far apart the results are, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dltrain.evidence.examples import ExampleTable
from dltrain.evidence.intervals import LEVEL, Interval, bootstrap, wilson
from dltrain.evidence.paired import Difference, McNemar, mcnemar, paired_bootstrap, share_difference
from dltrain.tasks.metrics import Metric

SHARE = "accuracy"
"""The metric that is the share of right answers, where answers are right or wrong."""
Verdict = Literal["better", "worse", "undecided"]


@dataclass(frozen=True)
class Score:
    """A metric of a table. method: how its interval was found."""

    value: float
    interval: Interval
    method: Literal["wilson", "bootstrap", "student"]


@dataclass(frozen=True)
class Comparison:
    """A second network against a first one, on the same examples.

    differences: second minus first of each metric. metric: the one that decides, by `p`. examples: how many there are.
    """

    differences: dict[str, Difference]
    metric: Metric
    p: float
    examples: int
    mcnemar: McNemar | None = None

    def verdict(self, p: float) -> Verdict:
        """What is decided of the second network. p: that of this comparison, or adjusted for several."""
        gain = self.differences[self.metric.name].value * (-1 if self.metric.direction == "min" else 1)
        if not p < 1 - LEVEL or not gain:  # never true of not-a-number
            return "undecided"
        return "better" if gain > 0 else "worse"

    def sentence(self, first: str, second: str, examples: str, p: float) -> str:
        """The same in words. first, second: names of the networks. examples: what they are called."""
        verdict, method = self.verdict(p), "exact McNemar test" if self.mcnemar is not None else "paired bootstrap"
        decided = "undecided" if verdict == "undecided" else f"{second} is {verdict}"
        if self.mcnemar is None:
            found = self.differences[self.metric.name]
            low, high = (f"{value:+{self.metric.format}}" for value in (found.interval.low, found.interval.high))
            what = f"{self.metric.name} differs by {found.value:+{self.metric.format}} ({low} to {high})"
            return f"{what}: {decided} ({shown(p)}, {method})"
        only, other = self.mcnemar.second_alone, self.mcnemar.first_alone
        if not only and not other:
            return f"{first} and {second} are right on the same {self.examples} {examples}: {decided}"
        sides = f"{second} alone is right on {only} {examples}, {first} alone on {other}"
        apart = f"{abs(only - other)} of {self.examples} {examples} apart"
        return f"{sides}. {apart}: {decided} ({shown(p)}, {method})"


def scores(table: ExampleTable, metrics: Sequence[Metric]) -> dict[str, Score]:
    """The task's metrics of a table by name, in their order: those that single examples tell."""
    measures, right, found = table.measures, table.outcomes.right, {}
    for name in (metric.name for metric in metrics if metric.name in measures):
        if name == SHARE and right is not None:
            count = int(right.sum())
            found[name] = Score(count / len(table), wilson(count, len(table)), "wilson")
        else:
            drawn = bootstrap(measures[name], len(table))
            found[name] = Score(drawn.value, drawn.interval, "bootstrap")
    return found


def compare(first: ExampleTable, second: ExampleTable, metrics: Sequence[Metric]) -> Comparison:
    """Compare two tables of the same examples. metrics: the task's, first the one that ranks.

    Where answers are right or wrong, McNemar's exact test of them decides; else the paired bootstrap of the metric that
    ranks, or of the loss where single examples do not tell that one.
    """
    if not np.array_equal(first.index, second.index):
        raise ValueError("the tables have different examples")
    one, other, size = first.measures, second.measures, len(first)
    differences = {
        metric.name: paired_bootstrap(one[metric.name], other[metric.name], size)
        for metric in metrics if metric.name in one
    }  # fmt: skip
    by_name = {metric.name: metric for metric in metrics}
    if first.outcomes.right is not None and second.outcomes.right is not None and SHARE in by_name:
        test = mcnemar(first.outcomes.right, second.outcomes.right)
        differences[SHARE] = share_difference(test, size)
        return Comparison(differences, by_name[SHARE], test.p, size, test)
    decides = next(metric for metric in metrics if metric.name in one)
    return Comparison(differences, decides, differences[decides.name].p, size)


def shown(p: float) -> str:
    """A probability, with two digits."""
    return f"p = {p:.2g}" if not p < 1e-4 else "p < 0.0001"
