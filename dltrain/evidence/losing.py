"""Whether a second network is worse than a first one by more than can be borne: paired, one-sided, with a bound.

The bound is what counts, not the estimate: a loss that few examples cannot rule out is not accepted either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from dltrain.evidence.comparing import SHARE
from dltrain.evidence.examples import ExampleTable
from dltrain.evidence.intervals import LEVEL, bootstrap
from dltrain.evidence.paired import mcnemar, share_bound
from dltrain.tasks.metrics import Metric


@dataclass(frozen=True)
class Loss:
    """What the second network loses of a metric: above 0 where it is worse.

    scale: of what is high, the difference; of errors, the share by which they grow. bound: the loss is below it with a
    confidence of LEVEL. p: how probable at least this loss is where both are equally good, one-sided. first_alone,
    second_alone: examples that only one has right, where answers are right or wrong.
    """

    metric: str
    scale: Literal["difference", "relative"]
    value: float
    bound: float
    p: float
    method: str
    first_alone: int | None = None
    second_alone: int | None = None

    def within(self, tolerance: float) -> bool:
        """Whether a loss beyond the tolerance is ruled out; never of what is no number."""
        return self.bound <= tolerance


def loss_of(first: ExampleTable, second: ExampleTable, metrics: Sequence[Metric]) -> Loss:
    """What the second loses on the same examples. metrics: the task's, first the one that ranks.

    Accuracy decides where answers are right or wrong, by McNemar's exact test and the score bound that belongs to it;
    else the metric that ranks, or the loss where single examples do not tell that one, by the paired bootstrap.
    """
    one, other = first.outcomes.right, second.outcomes.right
    if one is not None and other is not None and SHARE in (metric.name for metric in metrics):
        test = mcnemar(one, other)
        worse, better = test.first_alone, test.second_alone
        p = float(stats.binomtest(worse, worse + better, alternative="greater").pvalue) if worse + better else 1.0
        value, bound = (worse - better) / len(first), share_bound(worse, better, len(first))
        return Loss(SHARE, "difference", value, bound, p, "exact McNemar test", worse, better)
    measures, others = first.measures, second.measures
    metric = next(metric for metric in metrics if metric.name in measures)
    of_first, of_second, falls = measures[metric.name], others[metric.name], metric.direction == "min"

    def lost(counts: np.ndarray) -> np.ndarray:
        before, after = of_first(counts), of_second(counts)
        with np.errstate(divide="ignore", invalid="ignore"):
            found: np.ndarray = np.where(before == after, 0.0, after / before - 1) if falls else before - after
        return found

    drawn = bootstrap(lost, len(first), level=2 * LEVEL - 1)  # its upper end is the one-sided bound
    count = len(drawn.values)
    p = (int((drawn.values <= 0).sum()) + 1) / (count + 1)
    bound = drawn.interval.high if count else math.nan
    scale: Literal["difference", "relative"] = "relative" if falls else "difference"
    return Loss(metric.name, scale, drawn.value, bound, p, "paired bootstrap")
