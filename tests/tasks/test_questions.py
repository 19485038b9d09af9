"""Yes-or-no questions: one for two classes, one per label. Equal to scikit-learn's, thresholds from validation."""

from __future__ import annotations

import csv
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluating import invoke, measured
from learning import write_targets
from PIL import Image
from sklearn import metrics
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss
from training import result, table

from dltrain import ConfigError, Experiment, build
from dltrain.data.targets import Classes, Labels
from dltrain.engine.diagnosis import diagnose
from dltrain.runs import checkpoints
from dltrain.tasks.impl.curves import Curve
from dltrain.tasks.losses import BinaryCrossEntropy, Focal, Loss
from dltrain.tasks.outputs import YesNoLogits
from dltrain.tasks.questions import BinaryClassification, Multilabel

CPU = torch.device("cpu")
TEXT = """
data: {{name: arrays, path: {}, validation: 0.2}}
task: {}
model: {{name: mlp, hidden: [16]}}
optimizer: {{lr: 0.05}}
training: {{epochs: 4, batch_size: 32}}
"""
KINDS = {"binary_classification": "classes", "multilabel": "labels"}


def tied(n: int = 200, count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n, count) of which many are equal, float64, and whether each is true; of the last label none is."""
    draw = np.random.default_rng(1)
    truth = draw.random((n, count)) < [0.5, 0.1, 0.8, 0.0]
    scores = np.round(draw.normal(0, 1, (n, count)) + truth, 1)
    return torch.from_numpy(scores), torch.from_numpy(truth)


def test_curves_are_those_of_scikit_learn_on_ties_too() -> None:
    scores, truth = tied()
    for column in range(3):
        values, true = scores[:, column], truth[:, column]
        assert len(values.unique()) < 70, "there are ties"
        curve = Curve(values, true)
        assert curve.roc_auc == pytest.approx(metrics.roc_auc_score(true, values), abs=1e-12)
        assert curve.average_precision == pytest.approx(metrics.average_precision_score(true, values), abs=1e-12)
        found = metrics.f1_score(true, values > curve.best_threshold)
        candidates = [metrics.f1_score(true, values > at) for at in np.unique(values) - 0.05]
        assert found == pytest.approx(max(candidates))
        shuffled = torch.randperm(200, generator=torch.Generator().manual_seed(0))
        again = Curve(values[shuffled], true[shuffled])
        assert (again.roc_auc, again.average_precision, again.best_threshold) == (
            curve.roc_auc, curve.average_precision, curve.best_threshold
        )  # fmt: skip
    none = Curve(scores[:, 3], truth[:, 3])
    assert math.isnan(none.roc_auc) and math.isnan(none.average_precision) and none.best_threshold == 0.0
    assert math.isnan(Curve(torch.full((4,), math.nan), torch.tensor([True, False] * 2)).roc_auc)
    everything = Curve(torch.tensor([1.0, 2.0]), torch.tensor([True, True]))
    assert everything.best_threshold < 1.0, "all are yes"


def test_the_report_on_two_classes_is_that_of_scikit_learn() -> None:
    scores, truth = tied()
    task = BinaryClassification().build(BinaryCrossEntropy(), Classes(["no", "yes"]), CPU)
    outputs, labels = scores[:, :1], truth[:, 0].long()
    parts = [task.report(), task.report()]
    for report, rows in zip(parts, (slice(0, 90), slice(90, 200))):
        padded = torch.cat([outputs[rows], outputs[:5]]), torch.cat([labels[rows], labels[:5]])
        task.measure(report, *padded, valid=len(labels[rows]))
    together = [torch.cat(pair) for pair in zip(parts[0].rows, parts[1].rows, strict=True)]
    for total, other in zip(parts[0].sums, parts[1].sums, strict=True):
        total += other
    parts[0].join(together)  # as processes do
    task.settle(parts[0])
    at = float(task.thresholds)
    found, answered = parts[0].to_dict(), (outputs[:, 0] > at).numpy()
    true, probabilities = labels.numpy(), outputs[:, 0].sigmoid().numpy()
    assert at != 0 and found["threshold"] == pytest.approx(1 / (1 + math.exp(-at)))
    expected = {
        "accuracy": metrics.accuracy_score(true, answered), "precision": metrics.precision_score(true, answered),
        "recall": metrics.recall_score(true, answered), "f1": metrics.f1_score(true, answered),
        "roc_auc": metrics.roc_auc_score(true, probabilities),
        "average_precision": metrics.average_precision_score(true, probabilities),
        "loss": metrics.log_loss(true, probabilities),
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert found["confusion_matrix"] == metrics.confusion_matrix(true, answered).tolist()
    assert "ROC-AUC" in parts[0].table() and "as yes" in parts[0].table()
    meter = task.meter()
    for rows in (slice(0, 100), slice(100, 200)):
        answer, losses, _ = task.losses(outputs[rows], labels[rows])
        meter.update(losses, answer, labels[rows])
    assert meter.compute()["f1"] == pytest.approx(metrics.f1_score(true, outputs[:, 0].numpy() > 0))
    assert meter.compute()["accuracy"] == pytest.approx(metrics.accuracy_score(true, outputs[:, 0].numpy() > 0))


def test_the_report_on_labels_is_that_of_scikit_learn() -> None:
    scores, truth = tied()
    task = Multilabel(threshold=0.4).build(BinaryCrossEntropy(), Labels(["a", "b", "c", "d"]), CPU)
    report = task.report()
    with pytest.raises(ValueError, match="no example"):
        report.compute()
    task.measure(report, scores, truth.float(), valid=200)
    task.settle(report)  # it does not choose
    answered, true = (scores.sigmoid() > 0.4).numpy(), truth.numpy()
    found = report.to_dict()
    each = [metrics.average_precision_score(true[:, k], scores[:, k]) for k in range(3)]
    assert [row["average_precision"] for row in found["per_label"][:3]] == pytest.approx(each, abs=1e-12)
    assert found["per_label"][3]["average_precision"] is None and found["labels_without_examples"] == 1
    assert found["map"] == pytest.approx(np.mean(each))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        macro, micro = (metrics.f1_score(true, answered, average=how, zero_division=0) for how in ("macro", "micro"))
    assert (found["macro_f1"], found["micro_f1"]) == pytest.approx((macro, micro))
    assert found["loss"] == pytest.approx(float(F.binary_cross_entropy_with_logits(scores, truth.double())))
    assert [row["threshold"] for row in found["per_label"]] == pytest.approx([0.4] * 4)
    assert "mAP leaves out: 1" in report.table() and task.state_dict() == {}
    meter = task.meter()
    answer, losses, _ = task.losses(scores, truth.float())
    meter.update(losses, answer, truth.float())
    assert meter.compute()["micro_f1"] == pytest.approx(metrics.f1_score(true, scores.numpy() > 0, average="micro"))


def test_losses_of_questions_are_those_of_torch_and_torchvision() -> None:
    scores, truth = tied()
    targets, output = truth.double(), YesNoLogits(4)
    weights = [1.0, 9.0, 0.25, 2.0]
    found = BinaryCrossEntropy(pos_weight=weights).build(output)(scores, targets)
    expected = F.binary_cross_entropy_with_logits(
        scores, targets, pos_weight=torch.tensor(weights).double(), reduction="none"
    )
    torch.testing.assert_close(found, expected.mean(1))
    fitted = BinaryCrossEntropy(pos_weight="balanced").fitted(truth.sum(0).tolist(), 200)
    counts = truth.sum(0).tolist()
    assert fitted.pos_weight == pytest.approx([(200 - count) / max(count, 1) for count in counts])  # type: ignore[attr-defined]
    assert BinaryCrossEntropy(pos_weight=3.0).evaluation() == BinaryCrossEntropy()
    focal = Focal(form="sigmoid", gamma=1.5, alpha=0.25).build(output)(scores, targets)
    torch.testing.assert_close(focal, sigmoid_focal_loss(scores, targets, 0.25, 1.5).mean(1))
    smooth = BinaryCrossEntropy(label_smoothing=0.2).build(output)(scores, targets)
    expected = F.binary_cross_entropy_with_logits(scores, targets * 0.8 + 0.1, reduction="none").mean(1)
    torch.testing.assert_close(smooth, expected)
    with pytest.raises(ConfigError, match=r"`loss\.pos_weight` has 2 weights for 4 labels"):
        BinaryCrossEntropy(pos_weight=[1.0, 2.0]).build(output)


def test_mixed_classes_are_shares_of_the_second() -> None:
    task = BinaryClassification().build(BinaryCrossEntropy(), Classes(["no", "yes"]), CPU)
    shares = torch.tensor([[0.3, 0.7], [1.0, 0.0]])
    assert task.compared(shares).tolist() == [[pytest.approx(0.7)], [0.0]]
    outputs = torch.tensor([[1.0], [-2.0]])
    expected = F.binary_cross_entropy_with_logits(outputs[:, 0], torch.tensor([0.7, 0.0]), reduction="none")
    torch.testing.assert_close(task.losses(outputs, shares)[1], expected)


def test_answers_of_several_networks_are_means_of_probabilities_and_of_thresholds() -> None:
    tasks = [Multilabel().build(BinaryCrossEntropy(), Labels(["a", "b"]), CPU) for _ in range(3)]
    outputs = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0))
    together = tasks[2].combine(list(outputs))
    torch.testing.assert_close(together.sigmoid(), outputs.double().sigmoid().mean(0))
    tasks[0].thresholds.copy_(torch.tensor([0.2, 0.4]).logit())
    tasks[1].thresholds.copy_(torch.tensor([0.6, 0.5]).logit())
    tasks[2].adopt(tasks[:2])
    assert list(tasks[2].shown_thresholds().values()) == pytest.approx([0.4, 0.45], rel=1e-6)
    tasks[2].adopt(tasks[:1])
    assert torch.equal(tasks[2].thresholds, tasks[0].thresholds)
    sure = tasks[2].confidence(torch.tensor([[0.0, 0.0], [5.0, -5.0]]))
    assert sure[1] > sure[0]


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A task, and the folder with its data, an experiment and a run of it."""
    task, folder = request.param, tmp_path_factory.mktemp(request.param)
    write_targets(folder / "data.npz", KINDS[task], 240)
    (folder / "q.yaml").write_text(TEXT.format(folder / "data.npz", task))
    done = invoke("fit", folder / "q.yaml", "--runs", folder, "--device", "cpu", "augmentation=[mixup, cutmix]")
    assert done.exit_code == 0, done.output
    return task, folder


def test_the_best_epoch_comes_with_its_thresholds(trained: tuple[str, Path]) -> None:
    task, folder = trained
    run, ranks = folder / "q/001", "validation/map" if task == "multilabel" else "validation/roc_auc"
    told = result(run)
    assert told["best_metric"] == ranks and float(table(run)[told["best_epoch"] - 1][ranks]) > 0.9
    kept = checkpoints.load(run / "checkpoints/best.pt")["task"]["thresholds"]
    assert kept.abs().max() > 0
    found = measured(run, "--split", "validation")
    best = told["best"]
    for tag in (tag for tag in best if tag.startswith("validation/")):
        assert found[tag.partition("/")[2]] == pytest.approx(best[tag], rel=1e-6), tag
    shown = [found["threshold"]] if task == "binary_classification" else [r["threshold"] for r in found["per_label"]]
    assert shown == pytest.approx(kept.sigmoid().tolist())
    assert measured(run)["threshold" if task == "binary_classification" else "per_label"]
    assert invoke("eval", run, run, "--views", "flip", "--views-share", "0.5").exit_code == 0


def test_answers_use_and_tell_the_thresholds(trained: tuple[str, Path]) -> None:
    task, folder = trained
    with np.load(folder / "data.npz") as data:
        images = data["images"][:4]
    files = [folder / f"{number}.png" for number in range(4)]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    said = invoke("predict", folder / "q/001", *files)
    rows = list(csv.DictReader(said.stdout.splitlines()))
    lines = invoke("predict", folder / "q/001", *files, "--format", "jsonl").stdout.splitlines()
    assert "the answer is yes above a probability of " in said.stderr
    kept = checkpoints.load(folder / "q/001/checkpoints/best.pt")["task"]["thresholds"].sigmoid().tolist()
    for row, answer in zip(rows, map(json.loads, lines), strict=True):
        values = answer["probabilities"]
        if task == "binary_classification":
            expected = "bright" if values["bright"] > kept[0] else "dark"
            assert row["class"] == answer["class"] == expected and list(row)[2:] == ["probability", "dark", "bright"]
            assert answer["probability"] == values[expected]
        else:
            expected = [name for name, least in zip(values, kept, strict=True) if values[name] > least]
            assert answer["labels"] == expected and row["labels"] == "; ".join(expected)
            assert list(row)[2:] == ["left", "right", "both"]


def test_without_validation_the_threshold_is_one_half(trained: tuple[str, Path]) -> None:
    _, folder = trained
    trainer = build(Experiment.load(folder / "q.yaml", ["data.validation=0", "training.epochs=1"]), "cpu")
    for _ in trainer.run():
        pass
    assert trainer.state_dict()["task"]["thresholds"].abs().max() == 0
    fixed = Experiment.load(folder / "q.yaml", ["task.threshold=0.3", "data.validation=0"])
    assert "task" not in build(fixed, "cpu").state_dict()


def test_a_network_that_gives_the_same_answer_is_told(trained: tuple[str, Path]) -> None:
    _, folder = trained
    experiment = Experiment.load(folder / "q.yaml", ["training.epochs=1"])
    trainer = build(experiment, "cpu")
    for _ in trainer.run():
        pass
    ranks = f"validation/{experiment.resolved_task.ranks}"
    trainer.history[-1] |= {ranks: 0.5 if "auc" in ranks else 0.3}
    said = diagnose(trainer, experiment)
    assert said is not None and "is no better than the same answer for all" in said
    trainer.history[-1] |= {ranks: 0.9}
    assert diagnose(trainer, experiment) is None


@pytest.mark.parametrize(
    ("task", "line", "message"),
    [
        ("multilabel", "loss: cross_entropy", "gives a number per yes-or-no question"),
        ("multilabel", "loss: focal", "loss `focal` takes a number per class, and task `multilabel`"),
        ("multilabel", "sweep: {metric: validation/accuracy, space: {seed: {low: 0, high: 3}}}", "has no metric"),
        ("binary_classification", "loss: perceptron\naugmentation: [mixup]", "loss `perceptron` takes none that are"),
        ("classification", "task: {name: multilabel, threshold: 1.0}", "threshold"),
    ],
)
def test_what_does_not_go_with_questions_is_refused(task: str, line: str, message: str, tmp_path: Path) -> None:
    path = write_targets(tmp_path / "d.npz", KINDS.get(task, "labels"))
    text = TEXT.format(path, task)
    text = text.replace("task: classification\n", "") if "task:" in line else text
    with pytest.raises(ConfigError, match=message):
        Experiment.parse(text + line, "e.yaml")


BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("labels", {"targets": np.arange(150)}, r"`targets` are int64 of shape \(150,\), not \(N, K\)"),
    ("labels", {"targets": np.full((150, 3), 2)}, r"`targets\[0, 0\]` is 2, and must be 0 or 1"),
    ("labels", {"targets": np.arange(450).reshape(150, 3) % 3 == 0}, "no training example has label `right`"),
    (
        "classes",
        {"labels": np.arange(150) % 3, "classes": ["a", "b", "c"]},
        "tells two classes apart, and the data has 3",
    ),
]


@pytest.mark.parametrize(("kind", "changes", "message"), BROKEN)
def test_what_no_question_can_be_asked_of_is_said(
    kind: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    names = {"names": None} if np.ndim(changes.get("targets", [[]])) == 1 else {}
    path = write_targets(tmp_path / "d.npz", kind, **{**names, **changes})
    task = {kind: task for task, kind in KINDS.items()}[kind]
    with pytest.raises(ConfigError, match=message) as caught:
        build(Experiment.parse(f"\ndata: {{name: arrays, path: {path}}}\ntask: {task}\nmodel: mlp\n", "e.yaml"), "cpu")
    assert str(caught.value.diagnostics[0].where).startswith("e.yaml:3:" if kind == "classes" else "e.yaml:2:")


def test_every_loss_of_questions_trains(tmp_path: Path) -> None:
    path = write_targets(tmp_path / "d.npz", "classes")
    names = [name for entry in Loss.catalogue if issubclass(entry, Loss) and issubclass(YesNoLogits, entry.outputs)
             for name in entry.names()]  # fmt: skip
    assert {"binary_cross_entropy", "focal", "perceptron"} <= set(names)
    for name in names:
        text = TEXT.format(path, "binary_classification") + f"loss: {{name: {name}}}\n"
        text = text.replace("focal}", "focal, form: sigmoid}")
        experiment = Experiment.parse(text, overrides=["training.epochs=1"])
        trainer = build(experiment, "cpu")
        for _ in trainer.run():
            pass
        assert math.isfinite(trainer.history[-1]["validation/loss"])


@pytest.mark.parametrize("kind", ["labels", "numbers"])
def test_init_writes_an_experiment_for_targets(kind: str, tmp_path: Path) -> None:
    path = write_targets(tmp_path / "d.npz", kind)
    done = invoke("init", path, "--output", tmp_path / "e.yaml", "--no-time")
    assert done.exit_code == 0 and ("2 numbers, " in done.stderr if kind == "numbers" else "a label)" in done.stderr)
    task = Experiment.load(tmp_path / "e.yaml").resolved_task
    assert task.name == {"labels": "multilabel", "numbers": "regression"}[kind]
