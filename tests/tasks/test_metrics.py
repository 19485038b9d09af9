"""Losses and metrics, against numpy and scikit-learn."""

from __future__ import annotations

import io
import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn import metrics as sk
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from dltrain.config import ConfigError
from dltrain.data.targets import Classes
from dltrain.tasks import Classification, Task
from dltrain.tasks.impl.classification import ClassificationMeter
from dltrain.tasks.impl.classification_report import ClassificationReport
from dltrain.tasks.losses import BinaryCrossEntropy, CrossEntropy, Focal, Loss
from dltrain.tasks.outputs import Logits
from dltrain.testing import LossContract, TaskContract
from dltrain.testing.tasks import draw

CPU = torch.device("cpu")


def log_softmax(logits: torch.Tensor) -> np.ndarray:
    x = logits.double().numpy()
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


# -- losses


def loss(name: str, **options: Any) -> torch.nn.Module:
    section = Loss.parse({"name": name, **options})
    assert isinstance(section, Loss)
    return section.build(Logits(7))


class TestTasks(TaskContract):
    names = Task.all_names()


class TestLosses(LossContract):
    names = Loss.all_names()


def test_cross_entropy_facts() -> None:
    cross_entropy = loss("cross_entropy")
    assert cross_entropy(torch.zeros(1, 7), torch.tensor([3])).item() == pytest.approx(math.log(7))
    assert cross_entropy(torch.tensor([[1000.0, 0.0, -1000.0]]), torch.tensor([1])).item() == 1000.0
    logits, labels = draw(8)
    logits = logits.double().requires_grad_()
    cross_entropy(logits, labels).sum().backward()
    expected = logits.detach().softmax(1) - torch.nn.functional.one_hot(labels, 7)
    torch.testing.assert_close(logits.grad, expected)


def test_label_smoothing() -> None:
    logits, labels = draw(32)
    smooth = loss("cross_entropy", label_smoothing=0.1)
    log_p = log_softmax(logits)
    expected = -(0.9 * log_p[np.arange(32), labels] + 0.1 * log_p.mean(axis=1))
    np.testing.assert_allclose(smooth(logits.double(), labels), expected, rtol=1e-12)
    targets = 0.9 * torch.nn.functional.one_hot(labels, 7) + 0.1 / 7
    soft = -(targets.double().numpy() * log_p).sum(axis=1)  # cross-entropy of soft targets, by its definition
    np.testing.assert_allclose(loss("cross_entropy")(logits.double(), targets.double()), soft, rtol=1e-6)
    torch.testing.assert_close(smooth(logits, labels), loss("cross_entropy")(logits, targets))
    best = torch.full((1, 10), math.log(0.01), dtype=torch.float64)
    best[0, 4] = math.log(0.91)
    assert smooth(best, torch.tensor([4])).item() == pytest.approx(0.500288, abs=1e-6)  # the floor at K = 10


def test_focal() -> None:
    logits, labels = draw(32)
    torch.testing.assert_close(loss("focal", gamma=0.0)(logits, labels), loss("cross_entropy")(logits, labels))
    log_p = log_softmax(logits)[np.arange(32), labels]
    weights = [0.5, 1.0, 2.0, 1.0, 1.0, 1.0, 3.0]
    expected = -np.array(weights)[labels] * (1 - np.exp(log_p)) ** 1.5 * log_p
    found = loss("focal", gamma=1.5, alpha=weights)(logits.double(), labels)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert loss("focal")(torch.zeros(1, 2).double(), torch.tensor([1])).item() == pytest.approx(math.log(2) / 4)
    with pytest.raises(ConfigError, match=r"`loss\.alpha` has 2 weights for 7 classes"):
        loss("focal", alpha=[1.0, 2.0])


def test_focal_of_sigmoids() -> None:
    from torchvision.ops import sigmoid_focal_loss

    one = loss("focal", form="sigmoid", alpha=0.25)(torch.zeros(1, 1).double(), torch.ones(1, 1).double())
    assert one.item() == pytest.approx(0.043322, abs=1e-6)
    logits, labels = draw(32)
    logits = logits.double().requires_grad_()
    onehot = torch.nn.functional.one_hot(labels, 7).double()
    for gamma, alpha in ((2.0, 0.25), (1.5, 0.6)):
        focal = loss("focal", form="sigmoid", gamma=gamma, alpha=alpha)
        torch.testing.assert_close(focal(logits, labels), sigmoid_focal_loss(logits, onehot, alpha, gamma).mean(1))
        assert torch.autograd.gradcheck(focal, (logits, labels))
    plain = loss("focal", form="sigmoid", gamma=0.0)(logits, labels)
    torch.testing.assert_close(plain, loss("binary_cross_entropy")(logits, labels))
    extreme = torch.tensor([[1000.0, 0.0, -1000.0]] * 3, requires_grad=True)
    value = loss("focal", form="sigmoid")(extreme, torch.tensor([0, 1, 2]))
    value.sum().backward()
    assert value.isfinite().all() and extreme.grad is not None and extreme.grad.isfinite().all()
    assert Focal(form="sigmoid").evaluation() == BinaryCrossEntropy()
    for options in ({"alpha": 0.25}, {"form": "sigmoid", "alpha": [1.0]}):
        with pytest.raises(ValidationError, match="`alpha` is"):
            Loss.parse({"name": "focal", **options})


def test_class_weights() -> None:
    logits, labels = draw(32)
    weights = [0.5, 1.0, 2.0, 1.0, 1.0, 1.0, 3.0]
    for smooth in (0.0, 0.1):
        found = loss("cross_entropy", class_weights=weights, label_smoothing=smooth)(logits.double(), labels)
        reference = torch.nn.CrossEntropyLoss(torch.tensor(weights).double(), label_smoothing=smooth, reduction="none")
        torch.testing.assert_close(found, reference(logits.double(), labels))
    fitted = CrossEntropy(class_weights="balanced").fitted([30, 10, 20], 60)
    assert isinstance(fitted, CrossEntropy) and fitted.class_weights == pytest.approx([2 / 3, 2, 1])
    assert sum(n * w for n, w in zip([30, 10, 20], fitted.class_weights)) == pytest.approx(60)  # mean 1
    assert fitted.evaluation() == CrossEntropy()
    with pytest.raises(ConfigError, match=r"`loss\.class_weights` has 1 weights for 7 classes"):
        loss("cross_entropy", class_weights=[1.0])


def test_jensen_shannon() -> None:
    logits, labels = draw(8)
    labels = labels.repeat_interleave(3)
    views = torch.randn(24, 7, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    found = loss("jsd", weight=5.0)(views, labels)
    p = views.detach().softmax(1).view(8, 3, 7).numpy()
    mean = p.mean(1, keepdims=True)
    divergence = (p * np.log(p / mean)).sum(2).mean(1)
    expected = -np.log(p[:, 0][np.arange(8), labels[::3]]) + 5 * divergence
    np.testing.assert_allclose(found.detach().view(8, 3), np.tile(expected[:, None], 3), rtol=1e-10)
    assert torch.autograd.gradcheck(lambda x: loss("jsd")(x, labels[:6]), views.detach()[:6].requires_grad_())
    equal = logits.double().repeat_interleave(3, 0)
    torch.testing.assert_close(loss("jsd")(equal, labels), loss("cross_entropy")(equal, labels))  # divergence 0
    apart = torch.eye(3).double() * 1000  # three certain, different answers: ln 3
    zero = torch.tensor([0, 0, 0])
    assert loss("jsd", weight=1.0)(apart, zero)[0].item() == pytest.approx(math.log(3))


def test_binary_cross_entropy_and_squares() -> None:
    logits, labels = draw(32)
    onehot = torch.nn.functional.one_hot(labels, 7).double()
    o = logits.double()
    expected = np.log1p(np.exp(-np.abs(o.numpy()))) + np.maximum(o.numpy(), 0) - o.numpy() * onehot.numpy()
    np.testing.assert_allclose(loss("binary_cross_entropy")(o, labels), expected.mean(axis=1), rtol=1e-12)
    smooth = loss("binary_cross_entropy", label_smoothing=0.2)(o, labels)
    torch.testing.assert_close(smooth, loss("binary_cross_entropy")(o, 0.8 * onehot + 0.2 / 7))
    torch.testing.assert_close(loss("mse")(o, labels), (o - onehot).square().mean(1))
    half = 0.5 * (o - onehot).square().sum(1)
    torch.testing.assert_close(loss("mse", form="half_sum")(o, labels), half)
    torch.testing.assert_close(half, 0.5 * 7 * loss("mse")(o, labels))
    several = (torch.rand(32, 7, generator=torch.Generator().manual_seed(0)) < 0.5).double()  # any number of classes
    reference = torch.nn.functional.binary_cross_entropy(o.sigmoid(), several, reduction="none").mean(1)
    torch.testing.assert_close(loss("binary_cross_entropy")(o, several), reference)
    assert loss("binary_cross_entropy")(torch.zeros(1, 7), torch.tensor([0])).item() == pytest.approx(math.log(2))


def test_evaluation_reports_the_plain_loss() -> None:
    assert CrossEntropy(label_smoothing=0.1).evaluation() == CrossEntropy()
    assert Focal(gamma=3.0).evaluation() == CrossEntropy()
    target = Classes(["a", "b"])
    task = Classification().build(CrossEntropy(label_smoothing=0.5), target, CPU)
    logits, labels = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    assert task.losses(logits, labels)[1].item() > task.reported_losses(logits, labels).item()
    assert Classification().output(target) == Logits(2) and task.report().names == ["a", "b"]


@pytest.mark.parametrize("value", [-0.1, 1.0, "0.1"])
def test_label_smoothing_is_a_share(value: Any) -> None:
    with pytest.raises(ValidationError, match="label_smoothing"):
        Loss.parse({"name": "cross_entropy", "label_smoothing": value})


# -- training metrics


def test_training_metrics_are_means_over_examples() -> None:
    metrics = ClassificationMeter(CPU)
    assert metrics.compute() == {"loss": 0.0, "accuracy": 0.0}
    logits, labels = draw(50)
    losses = loss("cross_entropy")(logits, labels)
    metrics.update(losses[:30], logits[:30], labels[:30])
    metrics.update(losses[30:], logits[30:], labels[30:])
    found = metrics.compute()
    assert found["loss"] == pytest.approx(losses.double().mean().item(), rel=1e-9)
    assert found["accuracy"] == sk.accuracy_score(labels, logits.argmax(1)) and metrics.examples == 50
    metrics.reset()
    assert metrics.examples == 0


def test_training_metrics_count_the_larger_share_of_soft_targets() -> None:
    metrics = ClassificationMeter(CPU)
    logits = torch.tensor([[3.0, 0.0], [3.0, 0.0]])
    metrics.update(torch.zeros(2), logits, torch.tensor([[0.7, 0.3], [0.4, 0.6]]))
    assert metrics.compute()["accuracy"] == 0.5


def test_training_metrics_continue_exactly() -> None:
    first, second = ClassificationMeter(CPU), ClassificationMeter(CPU)
    logits, labels = draw(64)
    losses = loss("cross_entropy")(logits, labels)
    first.update(losses[:20], logits[:20], labels[:20])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    for metrics in (first, second):
        metrics.update(losses[20:], logits[20:], labels[20:])
    assert first.compute() == second.compute()


def test_sums_do_not_drift() -> None:
    """A million additions of 0.1 in float32 are off by 1 %."""
    metrics = ClassificationMeter(CPU)
    for _ in range(2000):
        metrics.update(torch.full((500,), 0.1), torch.zeros(500, 2), torch.zeros(500, dtype=torch.int64))
    assert metrics.compute()["loss"] == pytest.approx(0.1, rel=1e-7)


# -- evaluation


@pytest.fixture(scope="module")
def measured() -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Probabilities, labels, and the report on them, taken in batches of which the last is padded."""
    logits, labels = draw(230)
    logits[:, 6] -= 50  # a class that is never predicted
    report = ClassificationReport([f"class {i}" for i in range(7)], CPU)
    for start in range(0, 230, 50):
        x, y = logits[start : start + 50], labels[start : start + 50]
        pad = 50 - len(x)
        x, y = torch.cat([x, torch.full((pad, 7), 9.0)]), torch.cat([y, torch.zeros(pad, dtype=torch.int64)])
        report.update(x, y, loss("cross_entropy")(x, y), valid=50 - pad)
    return np.exp(log_softmax(logits)), labels.numpy(), report.to_dict()


def test_report_agrees_with_scikit_learn(measured: tuple[np.ndarray, np.ndarray, dict[str, Any]]) -> None:
    p, labels, report = measured
    predicted = p.argmax(axis=1)
    assert report["examples"] == 230
    assert report["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    assert report["top5_accuracy"] == pytest.approx(sk.top_k_accuracy_score(labels, p, k=5))
    assert report["loss"] == pytest.approx(-np.log(p[np.arange(230), labels]).mean(), rel=1e-6)
    assert report["confusion_matrix"] == sk.confusion_matrix(labels, predicted).tolist()
    expected = sk.precision_recall_fscore_support(labels, predicted, zero_division=0.0)
    for key, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [row[key] for row in report["per_class"]] == pytest.approx(list(values)), key
    macro = sk.precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0.0)
    assert list(report["macro"].values()) == pytest.approx(list(macro[:3]))


def test_calibration_error_is_the_mean_gap_over_bins(measured: tuple[np.ndarray, np.ndarray, dict[str, Any]]) -> None:
    p, labels, report = measured
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    edges = np.linspace(0, 1, 16)
    expected = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert report["ece"] == pytest.approx(expected, abs=1e-6)
    sure = ClassificationReport.from_logits(torch.eye(3) * 100, torch.tensor([0, 1, 2]))
    assert sure.ece == pytest.approx(0.0)
    wrong = ClassificationReport.from_logits(torch.eye(3) * 100, torch.tensor([1, 2, 0]))
    assert wrong.ece == pytest.approx(1.0) and wrong.accuracy == 0.0


def test_report_is_plain_json(measured: tuple[np.ndarray, np.ndarray, dict[str, Any]]) -> None:
    report = measured[2]
    assert json.loads(json.dumps(report)) == report
    assert list(report) == [
        "examples", "accuracy", "top5_accuracy", "loss", "ece", "ece_bins", "macro", "per_class", "confusion_matrix",
    ]  # fmt: skip


def test_top5_only_where_it_makes_sense() -> None:
    assert ClassificationReport.from_logits(*draw(classes=5)).top5_accuracy is None
    assert ClassificationReport.from_logits(*draw(classes=6)).top5_accuracy is not None


def test_an_absent_class_takes_no_part_in_the_mean() -> None:
    logits, labels = draw(classes=3)
    padded = torch.cat([logits, torch.full((len(logits), 1), -99.0)], dim=1)
    with_absent = ClassificationReport.from_logits(padded, labels, "abcd").to_dict()
    without = ClassificationReport.from_logits(logits, labels, "abc").to_dict()
    assert with_absent["macro"] == pytest.approx(without["macro"])
    assert with_absent["per_class"][3] == {"class": "d", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="no example"):
        _ = ClassificationReport("abc", CPU).accuracy


def test_wrong_numbers_are_no_success() -> None:
    logits = torch.full((4, 7), math.nan)
    report = ClassificationReport.from_logits(logits, torch.tensor([1, 2, 3, 4]))
    assert report.examples == 4 and report.accuracy == 0.0 and math.isnan(report.loss)


def test_table() -> None:
    logits, labels = draw(classes=3)
    names = ["cat", "犬", "a name that is far too long\nfor a column"]
    text = ClassificationReport.from_logits(logits, labels, names).table()
    lines = text.splitlines()
    assert lines[0].split() == ["examples", "200"] and "confusion matrix" in text and "top-5" not in text
    assert any(line.startswith("a name that is far too long…") for line in lines)
    many = ClassificationReport.from_logits(*draw(n=600, classes=40))
    text = many.table()
    assert "the 30 of 40 classes with the lowest F1" in text and "confusion" not in text and len(text.splitlines()) < 45


def test_updates_never_wait_for_the_device() -> None:
    """Fake tensors have no values: reading one on the host raises, as bincount's hidden read does."""
    with FakeTensorMode():
        logits, labels, losses = torch.zeros(8, 7), torch.zeros(8, dtype=torch.int64), torch.zeros(8)
        ClassificationReport("abcdefg", CPU).update(logits, labels, losses, valid=5)
        ClassificationMeter(CPU).update(losses, logits, labels)
        ClassificationMeter(CPU).update(losses, logits, logits.softmax(1))
        with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
            torch.bincount(labels)
