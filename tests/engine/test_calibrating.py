"""Temperatures and conformal sets as numbers: against a fine grid, a known factor, and the stated coverage."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Tensor
from torch.nn import functional as F

from dltrain.data.targets import Classes, Labels
from dltrain.engine.calibrating import ConformalSets, fit_temperature, needed, true_probabilities
from dltrain.errors import RunError
from dltrain.tasks.classification import Classification
from dltrain.tasks.impl.base import BuiltTask
from dltrain.tasks.losses import BinaryCrossEntropy, CrossEntropy
from dltrain.tasks.questions import BinaryClassification, Multilabel

CPU = torch.device("cpu")


def drawn(count: int, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (count, classes) and classes drawn with exactly their probabilities."""
    draw = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(count, classes, generator=draw, dtype=torch.float64)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=draw)[:, 0]


def built(kind: str) -> tuple[BuiltTask, Tensor, Tensor]:
    """A task, logits whose probabilities are right, and targets drawn by them."""
    if kind == "classification":
        task: BuiltTask = Classification().build(CrossEntropy(), Classes(list("abcd")), CPU)
        return task, *drawn(20_000)
    draw = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(20_000, 1 if kind == "binary" else 3, generator=draw, dtype=torch.float64)
    truth = torch.rand(logits.shape, generator=draw, dtype=torch.float64) < logits.sigmoid()
    if kind == "binary":
        return (BinaryClassification().build(BinaryCrossEntropy(), Classes(["no", "yes"]), CPU), logits,
                truth[:, 0].long())  # fmt: skip
    return Multilabel().build(BinaryCrossEntropy(), Labels(list("abc")), CPU), logits, truth.double()


@pytest.mark.parametrize("kind", ["classification", "binary", "multilabel"])
@pytest.mark.parametrize("factor", [0.4, 3.0])
def test_a_known_factor_is_recovered(kind: str, factor: float) -> None:
    task, logits, targets = built(kind)
    whole = fit_temperature(lambda scaled: task.likelihood_losses(scaled, targets), factor * logits)
    assert whole == pytest.approx(factor, rel=0.03), "20,000 draws tell a temperature to some 1 %"
    alone = fit_temperature(lambda scaled: task.likelihood_losses(scaled, targets), logits)
    assert whole == pytest.approx(factor * alone, rel=1e-5), "the fit knows nothing of the factor"


@pytest.mark.parametrize("seed", [0, 1])
def test_the_temperature_is_the_best_of_a_fine_grid(seed: int) -> None:
    logits, targets = drawn(300, seed=seed)
    logits = 2.5 * logits
    found = fit_temperature(lambda scaled: F.cross_entropy(scaled, targets, reduction="none"), logits)
    grid = found * np.exp(np.linspace(-0.01, 0.01, 4001))
    coarse = np.exp(np.linspace(math.log(0.05), math.log(50), 400))
    values = np.log(np.exp(logits.numpy()[None] / grid[:, None, None]).sum(2))
    values -= logits.numpy()[np.arange(300), targets.numpy()][None] / grid[:, None]
    assert abs(math.log(grid[values.mean(1).argmin()] / found)) <= 1e-5
    scores = torch.stack([F.cross_entropy(logits / float(each), targets) for each in coarse])
    assert float(F.cross_entropy(logits / found, targets)) <= float(scores.min()) + 1e-12


def test_where_the_likelihood_has_no_best_temperature_there_is_none() -> None:
    logits, targets = 5 * torch.eye(3).double().repeat(4, 1), torch.arange(3).repeat(4)
    with pytest.raises(RunError, match="every validation answer is right"):
        fit_temperature(lambda scaled: F.cross_entropy(scaled, targets, reduction="none"), logits)
    with pytest.raises(RunError, match="knows nothing of the validation split"):
        fit_temperature(lambda scaled: F.cross_entropy(scaled, targets.roll(1), reduction="none"), logits)
    with pytest.raises(RunError, match="no finite likelihood"):
        fit_temperature(lambda scaled: F.cross_entropy(scaled, targets, reduction="none"), logits * math.nan)


def test_classes_stay_and_thresholds_move_along() -> None:
    close = torch.tensor([[1.0, 1.0 + 2**-23, 0.0]])
    assert (close.double() / 7.3).argmax(1).item() == 1
    task = BinaryClassification(threshold=0.7).build(BinaryCrossEntropy(), Classes(["no", "yes"]), CPU)
    logits = torch.linspace(-3, 3, 101)[:, None]
    before = task.decide(logits)
    task.temper(2.0)
    assert torch.equal(task.decide(logits.double() / 2), before) and before.any() and not before.all()
    assert float(task.state_dict()["thresholds"]) == pytest.approx(math.log(7 / 3) / 2)


def test_the_calibration_error_of_questions_is_the_mean_gap_over_bins() -> None:
    task, logits, targets = built("multilabel")
    assert isinstance(targets, Tensor)
    report = task.report()
    for rows in (slice(0, 100), slice(100, 400)):
        report.update(logits[rows], targets[rows], torch.zeros(len(logits[rows])))
    p, true = logits[:400].sigmoid().numpy().ravel(), targets[:400].numpy().ravel()
    expected = 0.0
    for low in range(15):
        inside = (p > low / 15) & (p <= (low + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(true[inside].mean() - p[inside].mean())
    told = report.to_dict()
    assert told["ece"] == pytest.approx(expected, abs=1e-9) and expected > 0.005 and told["ece_bins"] == 15


def test_a_set_takes_so_many_examples() -> None:
    assert [needed(Fraction(text)) for text in ("0.05", "0.1", "0.5", "0.01", "0.3")] == [19, 9, 1, 99, 3]
    for text in ("0.05", "0.1", "0.01"):
        alpha, least = Fraction(text), needed(Fraction(text))
        assert ConformalSets.of([0.5] * least, alpha).least == 0.5
        with pytest.raises(RunError, match=f"take {least} validation examples, and there are {least - 1}"):
            ConformalSets.of([0.5] * (least - 1), alpha)


def test_the_quantile_is_that_of_the_paper() -> None:
    """Of 100 scores and alpha 0.1 the 91st smallest, ceil(101 * 0.9), by NumPy's rule for samples as they are."""
    p = np.random.default_rng(0).random(100)
    found = ConformalSets.of(p.tolist(), Fraction("0.1"))
    scores = 1 - p
    assert 1 - found.least == pytest.approx(np.quantile(scores, math.ceil(101 * 0.9) / 100, method="inverted_cdf"))
    assert (scores <= 1 - found.least + 1e-12).sum() == 91
    assert found.holds(torch.tensor([[found.least, found.least - 1e-9, 1.0]], dtype=torch.float64)).tolist() == [
        [True, False, True]
    ]


@pytest.mark.parametrize("text", ["0.05", "0.2"])
def test_the_coverage_over_simulated_splits_is_the_stated_one(text: str) -> None:
    """Each split has fresh calibration examples and one new example, so that the hits are independent: their number is
    binomial with a probability of ceil((n + 1)(1 - alpha)) / (n + 1). Networks that are wrong of themselves included.
    """
    alpha, splits, n = Fraction(text), 3000, 60
    logits, targets = drawn(splits * (n + 1), classes=5, seed=7)
    probabilities = (3 * logits).softmax(1).view(splits, n + 1, 5)  # overconfident: coverage holds all the same
    truth, hits = targets.view(splits, n + 1), 0
    for each, true in zip(probabilities, truth, strict=True):
        sets = ConformalSets.of(true_probabilities(each[:n], true[:n]), alpha)
        hits += int(sets.holds(each[n:])[0, true[n]])
    exact = math.ceil((n + 1) * (1 - alpha)) / (n + 1)
    assert exact >= 1 - alpha
    low, high = binom.ppf([0.0005, 0.9995], splits, exact)
    assert low <= hits <= high, hits / splits
