"""What a second network may have lost: the score bound against its definition, its coverage, and the relative one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

from dltrain.evidence.examples import ExampleTable
from dltrain.evidence.losing import Loss, loss_of
from dltrain.evidence.paired import share_bound
from dltrain.tasks.metrics import Metric
from dltrain.tasks.outcomes import ClassOutcomes, Outcomes

Z = stats.norm.ppf(0.95)
ACCURACY, LOSS = Metric("accuracy", "max"), Metric("loss", "min")


def likeliest(worse: int, better: int, examples: int, loss: float) -> float:
    """The share of examples that the second alone has right, where the difference is `loss`: by searching."""

    def surprise(share: float) -> float:
        parts = ((worse, share + loss), (better, share), (examples - worse - better, 1 - 2 * share - loss))
        return -sum(count * math.log(max(part, 1e-300)) for count, part in parts if count)

    found = optimize.minimize_scalar(
        surprise, bounds=(max(0.0, -loss), (1 - loss) / 2), method="bounded", options={"xatol": 1e-12}
    )
    return float(found.x)


@pytest.mark.parametrize("counts", [(5, 3, 100), (20, 4, 400), (3, 9, 150), (1, 0, 50), (40, 2, 60)])
def test_the_bound_is_where_the_score_test_begins_to_reject(counts: tuple[int, int, int]) -> None:
    worse, better, examples = counts
    bound = share_bound(*counts)
    share = likeliest(*counts, bound)
    spread = math.sqrt(examples * (2 * share + bound * (1 - bound)))
    assert (examples * bound - (worse - better)) / spread == pytest.approx(Z, rel=1e-4)


def test_the_same_answers_bound_what_more_examples_could_show() -> None:
    for examples in (1, 10, 143, 5000):
        assert share_bound(0, 0, examples) == pytest.approx(Z**2 / (examples + Z**2))
    assert share_bound(7, 0, 7) == 1.0
    assert share_bound(0, 7, 7) < 0.0


def test_the_bound_holds_as_often_as_it_says() -> None:
    """Of all tables of 40 examples, weighed by their probability where the loss is 0.06."""
    examples, gained, loss = 40, 0.05, 0.06
    held = 0.0
    for worse in range(18):
        for better in range(14):
            rest = examples - worse - better
            probability = stats.multinomial.pmf([worse, better, rest], examples, [gained + loss, gained, 0.84])
            held += probability * (share_bound(worse, better, examples) >= loss)
    assert 0.93 < held < 0.98


def classes(prediction: np.ndarray) -> ExampleTable:
    target = np.zeros(len(prediction), dtype=np.int64)
    probabilities = np.eye(2, dtype=np.float32)[prediction]
    outcomes = ClassOutcomes(["a", "b"], target, prediction, probabilities)
    return ExampleTable(np.arange(len(target)), {}, prediction.astype(np.float32), outcomes)


def test_accuracy_decides_where_answers_are_right_or_wrong() -> None:
    first, second = np.zeros(200, dtype=np.int64), np.zeros(200, dtype=np.int64)
    first[:3] = 1
    second[3:13] = 1
    found = loss_of(classes(first), classes(second), [ACCURACY, LOSS])
    assert (found.metric, found.scale, found.first_alone, found.second_alone) == ("accuracy", "difference", 10, 3)
    assert found.value == pytest.approx(7 / 200) and found.bound == share_bound(10, 3, 200)
    assert found.p == pytest.approx(stats.binom.sf(9, 13, 0.5))
    assert found.within(0.08) and not found.within(0.05)
    same = loss_of(classes(first), classes(first), [ACCURACY, LOSS])
    assert same.p == 1.0 and same.value == 0.0


def losses(values: np.ndarray) -> ExampleTable:
    return ExampleTable(np.arange(len(values)), {}, values, Outcomes())


def test_an_error_counts_by_the_share_that_it_grows() -> None:
    rng = np.random.default_rng(0)
    before = rng.gamma(2, size=300)
    found = loss_of(losses(before), losses(before * 1.05), [LOSS])
    assert (found.metric, found.scale) == ("loss", "relative")
    assert found.value == pytest.approx(0.05) and found.bound == pytest.approx(0.05) and found.p < 1e-3
    noisy = loss_of(losses(before), losses(before + rng.normal(0, 0.2, 300)), [LOSS])
    assert noisy.value < noisy.bound < noisy.value + 0.03 and noisy.p > 0.01
    equal = loss_of(losses(before), losses(before), [LOSS])
    assert equal.value == equal.bound == 0.0 and equal.within(0.0)


def test_what_is_no_number_is_never_within() -> None:
    broken = loss_of(losses(np.ones(20)), losses(np.full(20, np.nan)), [LOSS])
    assert not broken.within(1e9)
    assert not Loss("loss", "relative", math.nan, math.nan, 1.0, "").within(math.inf)
