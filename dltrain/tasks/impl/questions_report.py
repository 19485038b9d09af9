"""What a split says about answers to yes-or-no questions, and its tables. Imports torch.

outputs: (B, K) logits. losses: (B,). The scores of all examples are kept, 5 K bytes each, as their ranks are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dltrain.tasks.impl.curves import Curve
from dltrain.tasks.impl.meters import Report
from dltrain.tasks.impl.tables import aligned, plain

MOST = 30
"""Labels in a table."""


class QuestionsReport(Report):
    """The scores and the truth of every example; what follows from them is computed at the end, on the CPU."""

    bins = 15
    """Equal bins of the probability of yes for the expected calibration error."""

    def __init__(self, questions: Sequence[str], thresholds: Tensor, compared: Callable[[Tensor], Tensor]) -> None:
        """thresholds: (K,) logits, live. compared: makes targets of a batch (B, K) float."""
        self.questions, self.thresholds, self._compared = list(questions), thresholds, compared
        self._scores: list[Tensor] = []
        self._truth: list[Tensor] = []
        self.loss_sum = thresholds.new_zeros(())
        self.count = torch.zeros((), dtype=torch.int64, device=thresholds.device)
        self._curves: list[Curve] | None = None

    @torch.no_grad()
    def update(self, outputs: Tensor, targets: Tensor, losses: Tensor, valid: int | None = None) -> None:
        self._scores.append(outputs[:valid].to(torch.promote_types(outputs.dtype, torch.float32)))
        self._truth.append((self._compared(targets[:valid]) > 0.5).to(torch.uint8))
        self.loss_sum += losses[:valid].sum(dtype=self.loss_sum.dtype)
        self.count += len(outputs[:valid])
        self._curves = None

    @property
    def sums(self) -> list[Tensor]:
        return [self.loss_sum, self.count]

    @property
    def rows(self) -> list[Tensor]:
        empty = self.thresholds.new_zeros(0, len(self.questions))
        return [torch.cat(self._scores or [empty]), torch.cat(self._truth or [empty.to(torch.uint8)])]

    def join(self, rows: Sequence[Tensor]) -> None:
        self._scores, self._truth, self._curves = [rows[0]], [rows[1]], None

    @property
    def examples(self) -> int:
        """How many examples were measured. Raises ValueError when there were none."""
        if count := int(self.count):
            return count
        raise ValueError("no example was measured")

    @property
    def loss(self) -> float:
        """Mean loss."""
        return float(self.loss_sum) / self.examples

    @property
    def curves(self) -> list[Curve]:
        """Of each question, once all examples were measured."""
        if self._curves is None:
            scores, truth = self.rows
            self._curves = [Curve(*pair) for pair in zip(scores.T, truth.T, strict=True)]
        return self._curves

    @property
    def ece(self) -> float:
        """Expected calibration error of the probability of yes, all questions together: sum over `bins` equal bins of
        share * abs(share of yes - mean probability), 0 to 1."""
        scores, truth = (each.cpu().flatten().double() for each in self.rows)
        probabilities = scores.sigmoid()
        places = (probabilities * self.bins).ceil().clamp(1, self.bins).long() - 1
        gaps = torch.zeros(self.bins, dtype=torch.float64).index_add_(0, places, truth - probabilities)
        return float(gaps.abs().sum()) / max(len(probabilities), 1)

    def best_thresholds(self) -> Tensor:
        """(K,) logits: for each question that with the highest F1."""
        return self.thresholds.new_tensor([curve.best_threshold for curve in self.curves])

    def counts(self) -> list[tuple[int, int, int]]:
        """Of each question, how often yes was answered rightly, wrongly, and not although it is true."""
        scores, truth = self.rows
        yes, true = scores.to(self.thresholds.dtype) > self.thresholds, truth.bool()
        found = torch.stack([(yes & true).sum(0), (yes & ~true).sum(0), (~yes & true).sum(0)], 1)
        return [tuple(row) for row in found.tolist()]


class BinaryReport(QuestionsReport):
    """What a split says about one question: whether an example is of the second class."""

    def __init__(self, classes: Sequence[str], thresholds: Tensor, compared: Callable[[Tensor], Tensor]) -> None:
        super().__init__(classes[1:], thresholds, compared)
        self.classes = list(classes)

    def compute(self) -> dict[str, float]:
        ((right, wrong, missed),), (curve,) = self.counts(), self.curves
        return {
            "loss": self.loss, "accuracy": 1 - (wrong + missed) / self.examples,
            "precision": ratio(right, right + wrong), "recall": ratio(right, right + missed),
            "f1": f1_of(right, wrong, missed),
            "roc_auc": curve.roc_auc, "average_precision": curve.average_precision,
        }  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Rows of the confusion matrix are true classes. What is not defined is None."""
        ((right, wrong, missed),) = self.counts()
        return {
            "examples": self.examples, **{name: plain(value) for name, value in self.compute().items()},
            "ece": self.ece, "ece_bins": self.bins,
            "positive": self.classes[1], "threshold": float(self.thresholds.sigmoid()),
            "classes": self.classes,
            "confusion_matrix": [[self.examples - right - wrong - missed, wrong], [missed, right]],
        }  # fmt: skip

    def table(self) -> str:
        report = self.to_dict()
        names = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "F1", "roc_auc": "ROC-AUC",
                 "average_precision": "average precision", "loss": "loss", "ece": "ECE"}  # fmt: skip
        lines = [f"{'examples':<18}{report['examples']:>10}"]
        lines += [f"{title:<18}{_text(report[name]):>10}" for name, title in names.items()]
        lines.append(
            f"precision, recall and F1 of `{report['positive']}`, above a probability of {report['threshold']:.4f}"
        )
        rows = [[name, *map(str, row)] for name, row in zip(self.classes, report["confusion_matrix"], strict=True)]
        return "\n".join([*lines, "", *aligned(["true class", *(f"as {name}" for name in self.classes)], rows)])


class LabelsReport(QuestionsReport):
    """What a split says about labels: of each its ranks and its answers, and means of both."""

    def per_label(self) -> list[dict[str, Any]]:
        """Of each label. average_precision and roc_auc are not a number where no example has it."""
        thresholds = self.thresholds.sigmoid().tolist()
        return [
            {"label": name, "average_precision": curve.average_precision, "roc_auc": curve.roc_auc,
             "precision": ratio(right, right + wrong), "recall": ratio(right, right + missed),
             "f1": f1_of(right, wrong, missed), "support": right + missed, "threshold": threshold}
            for name, curve, (right, wrong, missed), threshold in zip(
                self.questions, self.curves, self.counts(), thresholds, strict=True
            )
        ]  # fmt: skip

    def compute(self) -> dict[str, float]:
        counts = self.counts()
        found = [curve.average_precision for curve in self.curves if curve.positive]
        each = [f1_of(*row) for row in counts if sum(row)]
        return {
            "loss": self.loss, "map": sum(found) / len(found) if found else math.nan,
            "macro_f1": sum(each) / max(len(each), 1), "micro_f1": f1_of(*map(sum, zip(*counts, strict=True))),
        }  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """labels_without_examples: how many labels no example has, which `map` leaves out. What is not defined is
        None."""
        rows = [{name: plain(value) for name, value in row.items()} for row in self.per_label()]
        return {
            "examples": self.examples, **{name: plain(value) for name, value in self.compute().items()},
            "ece": self.ece, "ece_bins": self.bins,
            "labels_without_examples": sum(not row["support"] for row in rows), "per_label": rows,
        }  # fmt: skip

    def table(self) -> str:
        """With many labels, those with the lowest average precision."""
        report = self.to_dict()
        lines = [f"{'examples':<10}{report['examples']:>10}"]
        for name, title in (("map", "mAP"), ("macro_f1", "macro F1"), ("micro_f1", "micro F1"), ("loss", "loss"),
                            ("ece", "ECE")):  # fmt: skip
            lines.append(f"{title:<10}{_text(report[name]):>10}")
        if report["labels_without_examples"]:
            lines.append(f"labels that no example has, and mAP leaves out: {report['labels_without_examples']}")
        rows = report["per_label"]
        lines.append("")
        if len(rows) > MOST:
            rows = sorted(
                rows, key=lambda row: math.inf if row["average_precision"] is None else row["average_precision"]
            )
            lines.append(f"the {MOST} of {len(rows)} labels with the lowest average precision:")
            rows = rows[:MOST]
        keys = ("average_precision", "precision", "recall", "f1", "threshold")
        cells = [[row["label"], *(_text(row[key]) for key in keys), str(row["support"])] for row in rows]
        titles = ["label", "average precision", "precision", "recall", "F1", "threshold", "support"]
        return "\n".join([*lines, *aligned(titles, cells)])


def ratio(part: float, whole: float) -> float:
    """A share, 0 of nothing, as in scikit-learn."""
    return part / whole if whole else 0.0


def f1_of(right: float, wrong: float, missed: float) -> float:
    """2 right / (2 right + wrong + missed)."""
    return ratio(2 * right, 2 * right + wrong + missed)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
