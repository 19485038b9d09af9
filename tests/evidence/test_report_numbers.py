"""What a report computes, against scikit-learn and against numbers by hand; and that its size is bounded."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
)

from dltrain.data.sources import ArraySource, FileSource
from dltrain.data.tables.reading import Column, Table
from dltrain.data.types import ImageFiles
from dltrain.evidence.comparing import scores
from dltrain.evidence.examples import ExampleTable
from dltrain.evidence.report.curves import Training
from dltrain.evidence.report.faces import Faces, uri
from dltrain.evidence.report.numbers import by_class, confusion, rates, reliability
from dltrain.evidence.report.page import Result, Story, page
from dltrain.evidence.report.slices import divided
from dltrain.tasks.classification import Classification
from dltrain.tasks.outcomes import ClassOutcomes, NumberOutcomes


def classified(examples: int, classes: int, seed: int = 0) -> ClassOutcomes:
    """Answers of a network that has learned something, to examples of classes of different frequency."""
    draw = np.random.default_rng(seed)
    target = draw.integers(0, classes, examples) * draw.integers(0, 2, examples)
    logits = draw.normal(size=(examples, classes)) + 1.5 * (target[:, None] == np.arange(classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return ClassOutcomes([f"c{n}" for n in range(classes)], target, probabilities.argmax(1), probabilities)


def test_each_class_is_that_of_scikit_learn() -> None:
    found = classified(300, 5)
    places = np.arange(6)  # a class that occurs nowhere counts 0
    own = by_class(found.target[:, None] == places, found.prediction[:, None] == places)
    precision, recall, f1, support = precision_recall_fscore_support(
        found.target, found.prediction, labels=places, zero_division=0
    )
    for mine, theirs in ((own.precision, precision), (own.recall, recall), (own.f1, f1), (own.support, support)):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)
    np.testing.assert_array_equal(
        confusion(found.target, found.prediction, 6), confusion_matrix(found.target, found.prediction, labels=places)
    )


@pytest.mark.parametrize("decimals", [8, 1])  # with and without equal scores
def test_curves_and_areas_are_those_of_scikit_learn(decimals: int) -> None:
    found = classified(200, 3)
    scored, truth = found.probabilities[:, 1].round(decimals), found.target == 1
    own = rates(scored, truth)
    assert own.roc_auc == pytest.approx(roc_auc_score(truth, scored), abs=1e-12)
    assert own.average_precision == pytest.approx(average_precision_score(truth, scored), abs=1e-12)
    false, right, _ = roc_curve(truth, scored, drop_intermediate=False)
    np.testing.assert_allclose(own.false, false, atol=1e-12)
    np.testing.assert_allclose(own.found, right, atol=1e-12)
    gained = np.diff(own.found) * own.precision[1:]
    assert gained.sum() == pytest.approx(own.average_precision, abs=1e-12)


def test_the_calibration_error_by_hand() -> None:
    sure = np.array([0.9, 0.9, 0.6, 0.6])
    found = reliability(sure, np.array([True, False, True, True]), bins=2)
    assert found.total.tolist() == [0, 4] and found.error == pytest.approx(abs(0.75 - 0.75))
    found = reliability(sure, np.array([True, False, True, True]), bins=10)  # |0.5 - 0.9| / 2 + |1 - 0.6| / 2
    assert found.error == pytest.approx(0.4)
    assert reliability(np.array([0.5, 0.0, 1.0]), np.array([True, False, True]), bins=2).total.tolist() == [2, 1]


def test_the_reliability_diagram_is_that_of_scikit_learn() -> None:
    found = classified(500, 4)
    own = reliability(found.sureness, found.right, 15)
    share, sure = calibration_curve(found.right, found.sureness, n_bins=15)
    there = own.total > 0
    np.testing.assert_allclose(own.sure[there], sure, atol=1e-12)
    np.testing.assert_allclose(own.right[there] / own.total[there], share, atol=1e-12)
    assert own.error == pytest.approx((np.abs(share - sure) * own.total[there]).sum() / 500)


def test_parts_hold_every_example_once() -> None:
    draw = np.random.default_rng(0)
    numbers = np.r_[draw.normal(size=97), np.nan, np.nan, np.inf]
    words = np.array([*"abcdefghijklmno" * 6, "", "a", "a"])
    for values in (numbers, np.arange(100) % 4, words):
        parts = divided(values)
        assert np.sum([inside for _, inside in parts], axis=0).tolist() == [1] * len(values)
        assert len({name for name, _ in parts}) == len(parts)
    sizes = {name: int(inside.sum()) for name, inside in divided(numbers)}
    assert sizes.pop("missing") == 3 and sorted(sizes.values()) == [24, 24, 24, 25]
    assert [name for name, _ in divided(np.arange(100) % 4)] == ["0", "1", "2", "3"]
    assert divided(words)[0][0] == "a" and divided(words)[0][1].sum() == 8
    assert divided(np.array(["x", "y", "z"])) == []  # a word for each example divides nothing


@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (2, 1), (3, 3), (4, 1)])
def test_tiny_images_are_shown_pixel_by_pixel(channels: int, shown: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, channels), dtype=np.uint8)
    image = Image.open(io.BytesIO(base64.b64decode(uri(pixels).partition("base64,")[2])))
    seen = np.asarray(image).reshape(9, 7, -1)
    expected = pixels if channels == shown else pixels.mean(2, keepdims=True).round()
    np.testing.assert_array_equal(seen, expected)


def test_pictures_know_their_size_and_the_columns_of_their_table(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (9, 4 + number)).save(tmp_path / f"{number}.png")
    beside = Table("t.csv", {"camera": Column("camera", words=np.array([*"abab"]))})
    files = ImageFiles(str(tmp_path), [f"{number}.png" for number in range(4)])
    source = FileSource(files, np.zeros(4), beside=beside).subset(np.array([3, 0, 1]))
    facts = source.facts(np.array([1, 0]))
    assert facts["image size"] == pytest.approx([6.0, 63**0.5]) and facts["camera"].tolist() == ["a", "b"]
    pictures = source.pictures(np.array([1, 0]), 6)
    assert [picture.shape for picture in pictures] == [(3, 6, 3), (5, 6, 3)]  # whole, and shrunk
    joined = source.joined([source])
    assert joined.facts(np.arange(6))["camera"].tolist() == [*"babbab"]
    other = FileSource(files, np.zeros(4), beside=Table("u.csv", {"lens": beside.columns["camera"]}))
    assert "camera" not in source.joined([other]).facts(np.arange(3))  # tables of different columns


def story(examples: int, classes: int, side: int) -> Story:
    """A classifier of noise, which no file format makes small."""
    outcomes = classified(examples, classes)
    draw = np.random.default_rng(1)
    images = draw.integers(0, 256, (examples, 3, side, side), dtype=np.uint8)
    losses = -np.log(outcomes.probabilities[np.arange(examples), outcomes.target])
    table, metrics = ExampleTable(np.arange(examples), {}, losses, outcomes), Classification.ranking()
    training = Training("the run", [{"epoch": 1.0, "step": 1.0, "lr": 0.1, "train/loss": 2.0}], {})
    source = ArraySource(images, outcomes.target)
    result = Result("the run", "runs/x", scores(table, metrics))
    where = "of the test split"
    return Story("x", "test", where, "images", metrics, [training], [result], Faces(table, source))


def test_large_numbers_are_written_out() -> None:
    target, prediction = np.array([[500_001.0], [0.25]]), np.array([[-129_700.4], [12_345.6]])
    told = NumberOutcomes(["price"], target, prediction)
    assert [told.sentence(row) for row in (0, 1)] == ["500,001, answered -129,700", "0.25, answered 12346"]


def test_a_page_of_many_large_images_is_bounded() -> None:
    html = page(story(2_000, 30, 112))
    assert 2_000_000 < len(html.encode()) < 5_000_000
    cells = re.findall(r'<details id="cell-[\d-]+">', html)
    assert 150 < len(cells) <= 240


def test_of_many_classes_the_most_mistaken_are_in_the_matrix() -> None:
    html = page(story(600, 50, 8))
    assert "The 30 of 50 classes with the most mistakes." in html
    assert page(story(600, 50, 8)) == html
