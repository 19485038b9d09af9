"""Intervals: equal to those of scipy and statsmodels, and to counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from dltrain.evidence.intervals import bootstrap, counted, of_mean, wilson
from dltrain.tasks.measures import (
    Decisions,
    Ranking,
    explained,
    mean_average_precision,
    mean_distance,
    mean_of,
    root_mean_square,
)


def draw(n: int = 60) -> np.random.Generator:
    return np.random.default_rng(n)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        (353, 359, 0.9640222446127882, 0.9923183045841477),
        (0, 10, 0.0, 0.27753279986288926),
        (10, 10, 0.7224672001371106, 1.0),
        (1, 3, 0.06149194472039621, 0.7923403991979523),
    ],
)
def test_wilson_is_that_of_statsmodels(right: int, total: int, low: float, high: float) -> None:
    """The numbers are proportion_confint(right, total, method="wilson") of statsmodels 0.15.0."""
    found = wilson(right, total)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    z = stats.norm.ppf(0.975)  # and the formula itself
    share, rest = right / total, 1 + z**2 / total
    middle = (share + z**2 / (2 * total)) / rest
    reach = z / rest * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    assert (found.low, found.high) == pytest.approx((middle - reach, middle + reach), abs=1e-9)
    assert right / total in found


def test_an_interval_over_seeds_is_students() -> None:
    values = [0.971, 0.968, 0.975, 0.969, 0.972]
    found = of_mean(values, 0.9)
    low, high = stats.t.interval(0.9, 4, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12) and found.level == 0.9
    assert 0.5 in of_mean([0.97]) and -1e9 in of_mean([0.97]), "one seed says nothing"


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_a_bootstrap_is_that_of_scipy(method: str) -> None:
    values = draw().exponential(size=60)
    found = bootstrap(mean_of(values), 60, method=method, resamples=999, seed=7)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=999, method=method, rng=np.random.default_rng(7), vectorized=True, axis=-1
    )
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(expected.confidence_interval), abs=1e-9)
    assert found.value == pytest.approx(values.mean(), abs=1e-12) and found.value in found.interval
    again = [bootstrap(mean_of(values), 60, resamples=99).interval for _ in range(2)]
    assert again[0] == again[1], "the draws are those of a seed"


def test_large_tables_are_drawn_in_parts_with_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = mean_of(draw().normal(size=500))
    whole = bootstrap(measure, 500, resamples=50, method="percentile")
    monkeypatch.setattr("dltrain.evidence.intervals.MOST_COUNTS", 5_000)
    parts = bootstrap(measure, 500, resamples=50, method="percentile")
    assert parts.values == pytest.approx(whole.values, abs=1e-15)


def test_a_metric_without_spread_has_an_interval_of_one_number() -> None:
    found = bootstrap(mean_of(np.ones(20)), 20, resamples=99)
    assert (found.interval.low, found.interval.high) == (1.0, 1.0)


def test_a_metric_that_is_not_defined_in_some_samples() -> None:
    scores, truth = np.array([0.9, 0.8, 0.3, 0.1]), np.array([True, False, False, False])
    found = bootstrap(Ranking(scores, truth).roc_auc, 4, resamples=400)
    assert len(found.values) < 400 and found.value == 1 and 0 < found.interval.low <= found.interval.high == 1
    never = bootstrap(Ranking(scores, np.zeros(4, bool)).roc_auc, 4, resamples=9)
    assert np.isnan(never.value) and np.isnan(never.interval.low) and not len(never.values)


def test_counts_of_places() -> None:
    found = counted(np.array([[0, 0, 2], [1, 1, 1]]), 3)
    assert found.tolist() == [[2, 0, 1], [0, 3, 0]]


@pytest.fixture(params=range(3))
def counts(request: pytest.FixtureRequest) -> np.ndarray:
    """How often each of 60 examples counts: once each, or as a bootstrap draws them."""
    if request.param == 0:
        return np.ones((1, 60))
    return counted(np.random.default_rng(request.param).integers(60, size=(1, 60)), 60)


def test_metrics_of_answers_are_those_of_scikit_learn(counts: np.ndarray) -> None:
    random, weights = draw(), counts[0]
    truth = random.random((60, 3)) < [0.5, 0.3, 0.1]
    scores = (truth + random.normal(size=(60, 3))).round(1)  # with equal ones
    answered = scores > 0.6
    decisions, options = Decisions(answered, truth), {"sample_weight": weights, "zero_division": 0.0}
    for average, found in (("micro", decisions.micro_f1), ("macro", decisions.macro_f1)):
        expected = metrics.f1_score(truth, answered, average=average, **options)
        assert found(counts)[0] == pytest.approx(expected, abs=1e-9)
    assert decisions.precision(counts)[0] == pytest.approx(
        metrics.precision_score(truth[:, 0], answered[:, 0], **options), abs=1e-9
    )
    assert decisions.recall(counts)[0] == pytest.approx(
        metrics.recall_score(truth[:, 0], answered[:, 0], **options), abs=1e-9
    )
    ranking = Ranking(scores[:, 0], truth[:, 0])
    assert ranking.roc_auc(counts)[0] == pytest.approx(
        metrics.roc_auc_score(truth[:, 0], scores[:, 0], sample_weight=weights), abs=1e-9
    )
    each = [
        metrics.average_precision_score(truth[:, k], scores[:, k], sample_weight=weights)
        for k in range(3) if weights @ truth[:, k]
    ]  # fmt: skip
    assert ranking.average_precision(counts)[0] == pytest.approx(each[0], abs=1e-9)
    assert mean_average_precision(scores, truth)(counts)[0] == pytest.approx(np.mean(each), abs=1e-9)


def test_metrics_of_numbers_are_those_of_scikit_learn(counts: np.ndarray) -> None:
    random, weights = draw(), counts[0]
    targets = random.normal(5, [1, 10], size=(60, 2))
    answers = targets + random.normal(size=(60, 2))
    errors = answers - targets
    expected = {
        root_mean_square: metrics.root_mean_squared_error, mean_distance: metrics.mean_absolute_error
    }  # fmt: skip
    for ours, theirs in expected.items():
        assert ours(errors)(counts)[0] == pytest.approx(theirs(targets, answers, sample_weight=weights), abs=1e-9)
    assert explained(errors, targets)(counts)[0] == pytest.approx(
        metrics.r2_score(targets, answers, sample_weight=weights), abs=1e-9
    )
    assert np.isnan(explained(errors, np.ones((60, 2)))(counts)).all()
