"""Paired tests: equal to those of scipy and statsmodels, to counts by hand, and honest where there is no difference."""

from __future__ import annotations

import numpy as np
import pytest
from rationing import some
from scipy import stats

from dltrain.evidence.paired import holm, mcnemar, paired_bootstrap, paired_t, share_difference, sign_flip
from dltrain.evidence.sequential import PRIOR, SequentialTest, normal_evidence, symmetric_evidence
from dltrain.tasks.measures import mean_of


def answers(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Which answers of two networks are right, from a table of counts."""
    return (
        np.repeat([True, True, False, False], [both, first, second, neither]),
        np.repeat([True, False, True, False], [both, first, second, neither]),
    )


@pytest.mark.parametrize(
    ("table", "p"),
    [
        ((300, 0, 0, 10), 1.0),
        ((300, 5, 5, 0), 1.0),
        ((348, 1, 0, 10), 1.0),  # either sign: 2 / 2
        ((340, 2, 5, 12), 58 / 128),  # (1 + 7 + 21) / 2^7, twice
        ((0, 0, 6, 0), 2 / 64),
        ((101, 121, 59, 33), 4.4344492637551645e-06),  # statsmodels 0.15.0: mcnemar(table, exact=True)
        ((0, 1, 9, 5), 22 / 1024),
    ],
)
def test_mcnemar_is_exact(table: tuple[int, int, int, int], p: float) -> None:
    found = mcnemar(*answers(*table))
    assert (found.first_alone, found.second_alone) == table[1:3]
    assert found.p == pytest.approx(p, abs=1e-12)
    assert mcnemar(*reversed(answers(*table))).p == found.p


def test_statsmodels_agrees() -> None:
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables", reason="it is large, and not installed")
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.proportion import proportion_confint

    from dltrain.evidence.intervals import wilson

    random = np.random.default_rng(0)
    for both, first, second, neither in random.integers(0, 40, (20, 4)).tolist():
        expected = contingency.mcnemar([[both, first], [second, neither]], exact=True).pvalue
        assert mcnemar(*answers(both, first, second, neither)).p == pytest.approx(expected, abs=1e-9)
        total = both + first + second + neither
        for level in (0.9, 0.95):
            found = wilson(both, total, level)
            expected = proportion_confint(both, total, 1 - level, "wilson")
            assert (found.low, found.high) == pytest.approx(expected, abs=1e-9)
    p_values = random.random(7) ** 2
    assert holm(p_values.tolist()) == pytest.approx(multipletests(p_values, method="holm")[1], abs=1e-9)


@pytest.mark.parametrize("table", [(356, 3, 0, 0), (340, 4, 9, 6), (50, 0, 0, 9), (0, 12, 30, 8)])
def test_a_difference_of_shares_ends_where_the_score_test_rejects(table: tuple[int, int, int, int]) -> None:
    """At its ends, with the likeliest shares there, the difference is 1.96 of its standard errors away (Tango 1998)."""
    _, first, second, _ = table
    examples, test = sum(table), mcnemar(*answers(*table))
    found = share_difference(test, examples)
    assert (found.value, found.p) == ((second - first) / examples, test.p)
    reversed_ = share_difference(mcnemar(*reversed(answers(*table))), examples).interval
    assert (reversed_.low, reversed_.high) == pytest.approx((-found.interval.high, -found.interval.low), abs=1e-9)
    for end in (found.interval.low, found.interval.high):
        shares = np.linspace(max(0.0, -end), (1 - end) / 2, 200_001)[1:-1]  # of what the first alone has right
        with np.errstate(divide="ignore"):
            surprise = first * np.log(shares) + second * np.log(shares + end)
            surprise += (examples - first - second) * np.log(1 - 2 * shares - end)
        share = shares[np.nanargmax(surprise)]
        spread = np.sqrt(examples * (2 * share + end * (1 - end)))
        assert abs(second - first - examples * end) / spread == pytest.approx(stats.norm.ppf(0.975), rel=2e-3)


def test_a_difference_of_few_examples_is_not_told_as_one() -> None:
    """Three images apart, undecided by McNemar's test: an interval without 0 would say the contrary."""
    found = share_difference(mcnemar(*answers(350, 3, 0, 6)), 359)
    assert found.p == 0.25 and found.interval.low < -3 / 359 < 0 < found.interval.high


def test_several_tests_are_judged_together() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9]) == [0.9] and holm([0.6, 0.6]) == [1.0, 1.0] and holm([]) == []


def test_a_paired_bootstrap_is_that_of_scipy() -> None:
    random = np.random.default_rng(1)
    first = random.exponential(size=80)
    second = first + random.normal(0.1, 0.3, 80)
    found = paired_bootstrap(mean_of(first), mean_of(second), 80, resamples=999, seed=3)
    expected = stats.bootstrap(
        (first, second), lambda a, b, axis: (b - a).mean(axis), n_resamples=999, paired=True, vectorized=True,
        rng=np.random.default_rng(3),
    )  # fmt: skip
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(expected.confidence_interval), abs=1e-9)
    assert found.value == pytest.approx((second - first).mean(), abs=1e-12)
    wrong = (expected.bootstrap_distribution <= 0).sum()
    assert found.p == pytest.approx(2 * (wrong + 1) / 1000, abs=1e-12)
    same = paired_bootstrap(mean_of(first), mean_of(first), 80, resamples=99)
    assert (same.value, same.interval.low, same.interval.high, same.p) == (0, 0, 0, 1)


def test_seeds_are_compared_in_pairs() -> None:
    first, second = [0.97, 0.96, 0.98, 0.95, 0.97], [0.98, 0.965, 0.983, 0.962, 0.974]
    found, expected = paired_t(first, second), stats.ttest_rel(second, first)
    assert found.p == pytest.approx(expected.pvalue, abs=1e-12)
    interval = expected.confidence_interval(0.95)
    assert (found.interval.low, found.interval.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    alone = paired_t([0.9], [0.95])
    assert alone.p == 1 and 0.0 in alone.interval
    assert paired_t([0.5, 0.75], [0.5, 0.75]).p == 1 and paired_t([0.5, 0.25], [0.75, 0.5]).p == 0


def test_signs_are_flipped_exactly() -> None:
    differences = [0.3, 0.1, -0.05, 0.2, 0.4]
    means = [np.mean((1 - 2 * np.array(flips)) * differences) for flips in np.ndindex(2, 2, 2, 2, 2)]
    expected = np.mean(np.abs(means) >= np.mean(differences) - 1e-12)
    assert sign_flip(differences) == pytest.approx(expected, abs=1e-12)
    assert sign_flip([0.1] * 6) == pytest.approx(2 / 64, abs=1e-12)
    random = np.random.default_rng(0).normal(0.5, 1, 30)
    assert sign_flip(random.tolist()) == pytest.approx(stats.ttest_1samp(random, 0).pvalue, abs=0.01)


NOTHING = {
    "normal": lambda random: random.normal(size=(2000, 60)),
    "one image": lambda random: random.choice([-1.0, 0.0, 1.0], (2000, 60)) / 359,
    "signs": lambda random: random.choice([-1.0, 1.0], (2000, 60)),
    "wild": lambda random: random.standard_t(1.5, (2000, 60)) * np.exp(random.normal(size=(2000, 60))),
}
"""Differences of 2,000 claims of 60 pairs each, where there is no difference."""


@pytest.mark.parametrize("kind", NOTHING)
def test_where_there_is_no_difference_few_claims_are_decided(kind: str) -> None:
    differences = NOTHING[kind](np.random.default_rng(0))
    for error in (0.05, 0.2):
        test = SequentialTest(error)
        decided = (test.evidence(differences).max(1) * error >= 1).mean()
        assert 0.2 * error < decided <= error, "looked at after each of 60 pairs"
    if kind == "normal":
        found = SequentialTest(0.05, assumes="normal").evidence(differences).max(1) * 0.05 >= 1
        assert 0.01 < found.mean() <= 0.05


@pytest.mark.parametrize("assumes", ["symmetric", "normal"])
def test_what_is_different_is_decided_soon(assumes: str) -> None:
    test = SequentialTest(0.05, assumes=assumes)
    random = np.random.default_rng(0)
    for effect, pairs, share in ((1.0, 30, 0.9), (2.0, 12, 0.95), (0.5, 60, 0.6)):
        evidence = test.evidence(random.normal(effect, 1, (1000, 60)))
        assert (evidence[:, :pairs].max(1) * 0.05 >= 1).mean() > share
    # It is the mean of the evidence that does not grow.
    means = test.evidence(random.choice([-1.0, 1.0], (50_000, 3))).mean(0)
    assert means == pytest.approx([1, 1, 1] if assumes == "symmetric" else means, abs=0.02)


@pytest.mark.parametrize("assumes", some(["normal", "symmetric"], 2))
def test_the_interval_holds_the_difference_at_all_times(assumes: str) -> None:
    test, random = SequentialTest(0.1, assumes=assumes), np.random.default_rng(2)
    missed = 0
    for _ in range(60):
        differences = random.normal(0.7, 1, 30)
        missed += any(0.7 not in test.interval(differences[:pairs]) for pairs in (5, 10, 20, 30))
    assert missed <= 6
    wide, narrow = (test.interval(random.normal(0.7, 1, pairs)) for pairs in (12, 200))
    assert narrow.high - narrow.low < 0.6 < wide.high - wide.low
    assert 0.7 in test.interval(random.normal(0.7, 1, 2)), "of two pairs nothing is known"
    assert np.isinf(test.interval(np.zeros(0)).high)


def test_the_normal_interval_is_the_solved_equation() -> None:
    differences = np.random.default_rng(5).normal(0.2, 3, 15)
    n, spread = 15, np.square(differences - differences.mean()).sum()
    rest = 1 - 0.05 ** (2 / n) * (PRIOR / (n + PRIOR)) ** (1 / n)
    reach = np.sqrt(rest * (n + PRIOR) * spread / (n * (n - rest * (n + PRIOR))))
    found = SequentialTest(0.05, assumes="normal").interval(differences)
    expected = (differences.mean() - reach, differences.mean() + reach)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-6)


def test_a_look_says_what_is_decided() -> None:
    random = np.random.default_rng(0)
    test = SequentialTest(0.05, margin=0.01)
    looks = {effect: test.look(random.normal(effect, 0.002, 25)) for effect in (0.02, -0.02, 0.0)}
    assert [look.verdict for look in looks.values()] == ["higher", "lower", "alike"]
    assert looks[0.02].p < 0.05 and 0.02 in looks[0.02].interval and looks[0.02].pairs == 25
    assert test.look(random.normal(0, 1, 5)).verdict == "undecided"
    assert SequentialTest(0.05).look(random.normal(0, 0.002, 25)).verdict == "undecided", "without a margin never alike"
    empty = test.look(np.zeros(0))
    assert (empty.pairs, empty.verdict, empty.p) == (0, "undecided", 1.0)


def test_evidence_of_many_pairs_is_a_number() -> None:
    for evidence in (symmetric_evidence, normal_evidence):
        assert np.isfinite(evidence(np.ones(3000))).all()
        assert evidence(np.zeros(5)).tolist() == [1.0] * 5, "no difference at all says nothing"
