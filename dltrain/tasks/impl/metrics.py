"""Metrics of classification, summed up on the device and read once. Imports torch.

logits_bk: (B, K). labels: (B,) int64. losses: (B,). No update waits for the device, and an update costs the
same memory whatever came before. `valid` is the number of leading rows that count, for padded batches.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dltrain.config.diagnostics import cells
from dltrain.data.loading.views import decide, wide_type

TOGETHER = 32
"""Training batches whose results are kept before they are summed."""


class TrainingMetrics:
    """Mean loss and accuracy of the training batches since the last `reset`.

    An update only keeps the batch's results. They are summed, many batches at once but each by itself, so that
    what is read does not depend on when it is read; small operations in every step cost more than they compute.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.reset()

    def reset(self) -> None:
        """Start again from nothing."""
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []
        self._losses = torch.zeros(0, dtype=wide_type(self._device), device=self._device)
        self._correct = torch.zeros(0, dtype=torch.int64, device=self._device)
        self.examples = 0
        """How many were added since then."""

    def update(self, losses: Tensor, logits_bk: Tensor, targets: Tensor) -> None:
        """Add a batch. A soft target (B, K) counts as right when its largest class is predicted."""
        if self._pending and (self._pending[0][1].shape != logits_bk.shape or len(self._pending) == TOGETHER):
            self._sum()
        self._pending.append((losses.detach(), logits_bk.detach(), targets))
        self.examples += losses.shape[0]

    @torch.no_grad()
    def _sum(self) -> None:
        """The pending batches as one sum and one count each."""
        if not self._pending:
            return
        losses, logits, targets = (torch.stack(values) for values in zip(*self._pending, strict=True))
        self._pending = []
        labels = targets.argmax(dim=2) if targets.ndim == 3 else targets
        self._losses = torch.cat([self._losses, losses.sum(1, dtype=self._losses.dtype)])
        self._correct = torch.cat([self._correct, (decide(logits) == labels).sum(1)])

    def compute(self) -> dict[str, float]:
        """`loss` and `accuracy`, both 0 before the first update. Waits for the device."""
        self._sum()
        n = max(self.examples, 1)
        return {"loss": float(self._losses.sum()) / n, "accuracy": float(self._correct.sum()) / n}

    @property
    def updates(self) -> int:
        """Updates since the reset."""
        return len(self._losses) + len(self._pending)

    def losses_after(self, updates: Sequence[int]) -> list[float]:
        """The mean loss of the first so many updates, for each number; all are equally large. Waits for the device."""
        self._sum()
        losses, examples = self._losses.cpu(), self.examples / max(len(self._losses), 1)
        return [float(losses[:count].sum()) / (count * examples) for count in updates]

    def first_non_finite(self) -> int | None:
        """Which update since the reset, from 0, first had a loss that is infinite or not a number."""
        self._sum()
        bad = (~torch.isfinite(self._losses)).nonzero()
        return int(bad[0]) if len(bad) else None

    def of_all(self, add: Callable[[Sequence[Tensor]], None]) -> TrainingMetrics:
        """The same of all processes, each with as many updates. add: replaces tensors by their sums over processes."""
        self._sum()
        whole = TrainingMetrics(self._device)
        whole._losses, whole._correct = self._losses.clone(), self._correct.clone()
        examples = torch.tensor(self.examples, device=self._device)
        add([whole._losses, whole._correct, examples])
        whole.examples = int(examples)
        return whole

    def state_dict(self) -> dict[str, Any]:
        """The sums, as tensors."""
        self._sum()
        return {"losses": self._losses, "correct": self._correct, "examples": self.examples}

    def load_state_dict(self, state: dict[str, Any], *, empty: bool = False) -> None:
        """Continue from what `state_dict` returned. empty: with as many updates, but all of no examples."""
        self.reset()
        self._losses, self._correct = state["losses"].to(self._losses), state["correct"].to(self._correct)
        self.examples = state["examples"]
        if empty:
            self._losses, self._correct = torch.zeros_like(self._losses), torch.zeros_like(self._correct)
            self.examples = 0


class ClassificationReport:
    """What a split says about a classifier: accuracy, loss, calibration, and how each class fares."""

    bins = 15
    """Equal bins of confidence for the expected calibration error (Guo et al. 2017)."""

    def __init__(self, classes: int, device: torch.device) -> None:
        self.classes = classes
        wide = wide_type(device)
        self.counts = torch.zeros(classes * classes, dtype=torch.int64, device=device)
        self.in_top5 = torch.zeros((), dtype=torch.int64, device=device)
        self.loss_sum = torch.zeros((), dtype=wide, device=device)
        self.hits = torch.zeros(self.bins, dtype=wide, device=device)
        self.confidences = torch.zeros(self.bins, dtype=wide, device=device)
        self._upper = torch.arange(1, self.bins + 1, device=device)

    @classmethod
    def from_logits(cls, logits_bk: Tensor, labels: Tensor) -> ClassificationReport:
        """The report on one batch."""
        report = cls(logits_bk.shape[1], logits_bk.device)
        report.update(logits_bk, labels)
        return report

    @torch.no_grad()
    def update(self, logits_bk: Tensor, labels: Tensor, losses: Tensor | None = None, valid: int | None = None) -> None:
        """Add a batch; `losses` are cross-entropies when left out."""
        logits_bk, labels = logits_bk[:valid], labels[:valid]
        losses = F.cross_entropy(logits_bk.float(), labels, reduction="none") if losses is None else losses[:valid]
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
        """All that is summed up: the sums of several parts of a split, added, are those of the whole."""
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
        """The metrics that an epoch reports, by name."""
        return {"loss": self.loss, "accuracy": self.accuracy}

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Plain numbers, ready for JSON. `macro` are means over the classes that occur or were predicted; a
        share of nothing is 0, as in scikit-learn."""
        matrix = self.counts.view(self.classes, self.classes).cpu()
        support, predicted, right = matrix.sum(dim=1), matrix.sum(dim=0), matrix.diagonal()
        precision = (right / predicted.clamp_min(1).double()).tolist()
        recall = (right / support.clamp_min(1).double()).tolist()
        f1 = (2 * right / (support + predicted).clamp_min(1).double()).tolist()
        occurs = [i for i, n in enumerate((support + predicted).tolist()) if n]
        rows = zip(classes, precision, recall, f1, support.tolist(), strict=True)
        columns = {"precision": precision, "recall": recall, "f1": f1}
        return {
            "examples": self.examples,
            "accuracy": self.accuracy,
            "top5_accuracy": self.top5_accuracy,
            "loss": self.loss,
            "ece": self.ece,
            "macro": {key: sum(values[i] for i in occurs) / len(occurs) for key, values in columns.items()},
            "per_class": [
                {"class": name, "precision": p, "recall": r, "f1": f, "support": n} for name, p, r, f, n in rows
            ],
            "confusion_matrix": self.confusion,
        }

    def table(self, classes: Sequence[str], most: int = 30) -> str:
        """The report as text. With more than `most` classes, those with the lowest F1 and no matrix."""
        return table(self.to_dict(classes), most)


def table(report: dict[str, Any], most: int = 30) -> str:
    """What `to_dict` returned, as text for a terminal."""
    top5 = report["top5_accuracy"]
    lines = [f"{'examples':<10}{report['examples']:>10}", f"{'accuracy':<10}{report['accuracy']:>10.4f}"]
    lines += [f"{'top-5':<10}{top5:>10.4f}"] if top5 is not None else []
    lines += [f"{'loss':<10}{report['loss']:>10.4f}", f"{'ECE':<10}{report['ece']:>10.4f}", ""]
    rows = report["per_class"]
    whole = len(rows) <= most
    if not whole:
        rows = sorted(rows, key=lambda row: row["f1"])[:most]
        lines += [f"the {most} of {len(report['per_class'])} classes with the lowest F1:"]
    names = [_fit(row["class"]) for row in rows]
    width = max(map(cells, [*names, "macro mean"]))
    lines.append(f"{'class':<{width}}  precision  recall      F1  support")
    for name, row in zip(names, rows, strict=True):
        shares = f"{row['precision']:>9.4f}  {row['recall']:>6.4f}  {row['f1']:>6.4f}"
        lines.append(f"{_pad(name, width)}  {shares}  {row['support']:>7}")
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
        lines.append(f"{_pad(name, width)} {i:>3}" + "".join(f"{n or '.':>{cell}}" for n in row))
    return lines


def _fit(name: str, width: int = 28) -> str:
    """A class name on one line, cut to a width in terminal cells."""
    name = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in name)
    if cells(name) <= width:
        return name
    while cells(name) > width - 1:
        name = name[:-1]
    return name + "…"


def _pad(name: str, width: int) -> str:
    return name + " " * (width - cells(name))
