"""What a split says about a classifier, summed up on the device and read once, and its table. Imports torch.

logits_bk: (B, K). labels: (B,) int64. losses: (B,). An update costs the same memory whatever came before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dltrain.config.diagnostics import cells
from dltrain.tasks.impl.meters import Report, wide_type
from dltrain.tasks.impl.tables import fit, pad

OWN = ("accuracy", "top5_accuracy", "loss", "ece")
"""What a report says in words of its own."""


def decide(logits: Tensor) -> Tensor:
    """The class that logits (..., K) answer with, (...) int64: always found here, and before they are rounded.

    Their probabilities, or the logits in fewer bits, may be equal where the logits are not.
    """
    return logits.argmax(-1)


class ClassificationReport(Report):
    """What a split says about a classifier: accuracy, loss, calibration, and how each class fares."""

    bins = 15
    """Equal bins of confidence for the expected calibration error (Guo et al. 2017)."""

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        """names: of the classes."""
        self.names, self.classes = list(names), len(names)
        wide, classes = wide_type(device), len(names)
        self.counts = torch.zeros(classes * classes, dtype=torch.int64, device=device)
        self.in_top5 = torch.zeros((), dtype=torch.int64, device=device)
        self.loss_sum = torch.zeros((), dtype=wide, device=device)
        self.hits = torch.zeros(self.bins, dtype=wide, device=device)
        self.confidences = torch.zeros(self.bins, dtype=wide, device=device)
        self._upper = torch.arange(1, self.bins + 1, device=device)

    @classmethod
    def from_logits(cls, logits_bk: Tensor, labels: Tensor, names: Sequence[str] | None = None) -> ClassificationReport:
        """The report on one batch, with cross-entropies for losses. names: of the classes, by default their numbers."""
        report = cls(names or list(map(str, range(logits_bk.shape[1]))), logits_bk.device)
        report.update(logits_bk, labels, F.cross_entropy(logits_bk.float(), labels, reduction="none"))
        return report

    @torch.no_grad()
    def update(self, outputs: Tensor, targets: Tensor, losses: Tensor, valid: int | None = None) -> None:
        logits_bk, labels, losses = outputs[:valid], targets[:valid], losses[:valid]
        predicted = decide(logits_bk)
        confidence = logits_bk.float().softmax(dim=1).gather(1, predicted[:, None])[:, 0].to(self.hits.dtype)
        right = predicted == labels
        # Not bincount: its result's size is read back from the device.
        self.counts.index_add_(0, labels * self.classes + predicted, torch.ones_like(labels))
        if self.classes > 5:
            self.in_top5 += (logits_bk.topk(5, dim=1).indices == labels[:, None]).sum()
        self.loss_sum += losses.sum(dtype=self.loss_sum.dtype)
        # A mask and a sum, not an index_add of floats: that adds in no fixed order on a GPU.
        inside = (confidence * self.bins).ceil().clamp(1, self.bins)[:, None] == self._upper
        self.hits += (inside & right[:, None]).sum(dim=0)
        self.confidences += (inside * confidence[:, None]).sum(dim=0)

    @property
    def sums(self) -> list[Tensor]:
        return [self.counts, self.in_top5, self.loss_sum, self.hits, self.confidences]

    @property
    def confusion(self) -> list[list[int]]:
        """Examples by true class (row) and predicted class (column)."""
        rows: list[list[int]] = self.counts.view(self.classes, self.classes).tolist()
        return rows

    @property
    def examples(self) -> int:
        """How many examples were measured. Raises ValueError when there were none."""
        if count := int(self.counts.sum()):
            return count
        raise ValueError("no example was measured")

    @property
    def accuracy(self) -> float:
        """Share of examples whose largest logit is the true class's."""
        return int(self.counts.view(self.classes, self.classes).diagonal().sum()) / self.examples

    @property
    def top5_accuracy(self) -> float | None:
        """Share of examples whose class is among the five largest logits; None with five classes or fewer."""
        return int(self.in_top5) / self.examples if self.classes > 5 else None

    @property
    def loss(self) -> float:
        """Mean loss."""
        return float(self.loss_sum) / self.examples

    @property
    def ece(self) -> float:
        """Expected calibration error: sum over bins of share * abs(accuracy - mean confidence), 0 to 1."""
        return float((self.hits - self.confidences).abs().sum()) / self.examples

    def compute(self) -> dict[str, float]:
        return {"loss": self.loss, "accuracy": self.accuracy}

    def to_dict(self) -> dict[str, Any]:
        """`macro` are means over the classes that occur or were predicted; a
        share of nothing is 0, as in scikit-learn."""
        matrix = self.counts.view(self.classes, self.classes).cpu()
        support, predicted, right = matrix.sum(dim=1), matrix.sum(dim=0), matrix.diagonal()
        precision = (right / predicted.clamp_min(1).double()).tolist()
        recall = (right / support.clamp_min(1).double()).tolist()
        f1 = (2 * right / (support + predicted).clamp_min(1).double()).tolist()
        occurs = [i for i, n in enumerate((support + predicted).tolist()) if n]
        rows = zip(self.names, precision, recall, f1, support.tolist(), strict=True)
        columns = {"precision": precision, "recall": recall, "f1": f1}
        return {
            "examples": self.examples,
            "accuracy": self.accuracy,
            "top5_accuracy": self.top5_accuracy,
            "loss": self.loss,
            "ece": self.ece,
            "ece_bins": self.bins,
            **self.compute(),
            "macro": {key: sum(values[i] for i in occurs) / len(occurs) for key, values in columns.items()},
            "per_class": [
                {"class": name, "precision": p, "recall": r, "f1": f, "support": n} for name, p, r, f, n in rows
            ],
            "confusion_matrix": self.confusion,
        }

    def table(self, most: int = 30) -> str:
        """With more than `most` classes, those with the lowest F1 and no matrix."""
        return table(self.to_dict(), most)


def table(report: dict[str, Any], most: int = 30) -> str:
    """What `to_dict` returned, as text for a terminal; other metrics, of a subclass, between the calibration error and
    the classes."""
    top5 = report["top5_accuracy"]
    others = {name: value for name, value in report.items() if isinstance(value, float) and name not in OWN}
    lines = [f"{'examples':<10}{report['examples']:>10}", f"{'accuracy':<10}{report['accuracy']:>10.4f}"]
    lines += [f"{'top-5':<10}{top5:>10.4f}"] if top5 is not None else []
    lines += [f"{'loss':<10}{report['loss']:>10.4f}", f"{'ECE':<10}{report['ece']:>10.4f}"]
    lines += [*(f"{name:<10}{value:>10.4f}" for name, value in others.items()), ""]
    rows = report["per_class"]
    whole = len(rows) <= most
    if not whole:
        rows = sorted(rows, key=lambda row: row["f1"])[:most]
        lines += [f"the {most} of {len(report['per_class'])} classes with the lowest F1:"]
    names = [fit(row["class"]) for row in rows]
    width = max(map(cells, [*names, "macro mean"]))
    lines.append(f"{'class':<{width}}  precision  recall      F1  support")
    for name, row in zip(names, rows, strict=True):
        shares = f"{row['precision']:>9.4f}  {row['recall']:>6.4f}  {row['f1']:>6.4f}"
        lines.append(f"{pad(name, width)}  {shares}  {row['support']:>7}")
    mean = report["macro"]
    shares = f"{mean['precision']:>9.4f}  {mean['recall']:>6.4f}  {mean['f1']:>6.4f}"
    lines.append(f"{'macro mean':<{width}}  {shares}  {report['examples']:>7}")
    if whole:
        lines += ["", *_matrix(names, width, report["confusion_matrix"])]
    return "\n".join(lines)


def _matrix(names: Sequence[str], width: int, matrix: list[list[int]]) -> list[str]:
    cell = max(len(str(max(map(max, matrix)))), len(str(len(matrix) - 1))) + 1
    lines = ["confusion matrix: rows are true classes, columns predicted ones in the same order"]
    lines.append(" " * (width + 4) + "".join(f"{i:>{cell}}" for i in range(len(matrix))))
    for i, (name, row) in enumerate(zip(names, matrix, strict=True)):
        # A dot for 0: the mistakes stand out.
        lines.append(f"{pad(name, width)} {i:>3}" + "".join(f"{n or '.':>{cell}}" for n in row))
    return lines
