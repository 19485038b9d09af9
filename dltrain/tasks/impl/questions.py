"""The tasks of yes-or-no questions, built: thresholds, answers, and sums over batches. Imports torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dltrain.tasks.impl.base import BuiltTask, Readings, SupervisedTask, free_name
from dltrain.tasks.impl.meters import Meter, Report, wide_type
from dltrain.tasks.impl.questions_report import BinaryReport, LabelsReport, QuestionsReport, f1_of, ratio
from dltrain.tasks.losses import Loss
from dltrain.tasks.outcomes import BinaryOutcomes, LabelOutcomes
from dltrain.tasks.outputs import YesNoLogits


class BuiltQuestions(SupervisedTask):
    """A model's output (B, K) are logits of yes, a target (B, K) float shares of it. The answer is yes where a logit is
    above that of `thresholds` (K,), which are chosen on the validation split or given."""

    calibrates = True

    def __init__(
        self, loss: Loss, reported: Loss, questions: Sequence[str], device: torch.device, auxiliary: float,
        threshold: float | str,
    ) -> None:  # fmt: skip
        """questions: the names of what is asked for. threshold: a probability, or `auto`."""
        super().__init__(loss, reported, YesNoLogits(len(questions)), device, auxiliary)
        self.questions = list(questions)
        self.chooses, self.tempered = isinstance(threshold, str), False
        start = 0.0 if isinstance(threshold, str) else math.log(threshold / (1 - threshold))
        self.thresholds = torch.full((len(questions),), start, dtype=wide_type(device), device=device)

    def settle(self, report: Report) -> None:
        if self.chooses and isinstance(report, QuestionsReport):
            self.thresholds.copy_(report.best_thresholds())

    def adopt(self, tasks: Sequence[BuiltTask]) -> None:
        """Of several networks the means of their thresholds, as probabilities: their answers are averaged so too."""
        found = [task.thresholds.to(self.thresholds) for task in tasks if isinstance(task, BuiltQuestions)]
        if len(found) == 1:
            self.thresholds.copy_(found[0])
        elif found:
            self.thresholds.copy_(torch.stack(found).sigmoid().mean(0).logit())

    def state_dict(self) -> dict[str, Any]:
        return {"thresholds": self.thresholds} if self.chooses or self.tempered else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.thresholds.copy_(state["thresholds"])

    def temper(self, temperature: float) -> None:
        """The thresholds move with the logits, so that answers stay: as probabilities they are others then."""
        self.thresholds.div_(temperature)
        self.tempered = True

    def likelihood_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        wanted = self.compared(targets).to(outputs.dtype)
        return F.binary_cross_entropy_with_logits(outputs, wanted, reduction="none").mean(1)

    def decide(self, outputs: Tensor) -> Tensor:
        """Whether the answer to each question is yes (B, K)."""
        return outputs.to(self.thresholds.dtype) > self.thresholds

    def combine(self, outputs: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
        """The logits of the mean of the probabilities."""
        weights, device = weights or [1 / len(outputs)] * len(outputs), outputs[0].device
        wide = [o.to(device).to(wide_type(device)) for o in outputs]
        yes, no = (
            torch.stack([F.logsigmoid(sign * o) + math.log(w) for o, w in zip(wide, weights, strict=True)]).logsumexp(0)
            for sign in (1, -1)
        )
        return yes - no

    def confidence(self, outputs: Tensor) -> Tensor:
        """How far the logit nearest to its threshold is from it."""
        return (outputs - self.thresholds.to(outputs.dtype)).abs().amin(1)

    def probabilities(self, outputs: Tensor) -> list[list[float]]:
        """Of yes to each question, per example."""
        found: list[list[float]] = (outputs if outputs.dtype == torch.float64 else outputs.float()).sigmoid().tolist()
        return found

    def shown_thresholds(self) -> dict[str, float]:
        """As probabilities, by question."""
        return dict(zip(self.questions, self.thresholds.sigmoid().tolist(), strict=True))

    def remarks(self) -> list[str]:
        parts = [f"{value:.4f} for `{name}`" for name, value in self.shown_thresholds().items()]
        shown = ", ".join(parts[:8]) + (f" and {len(parts) - 8} more" if len(parts) > 8 else "")
        return [f"the answer is yes above a probability of {shown}"]


class BuiltBinary(BuiltQuestions):
    """A target is a class (B,) int64, or a share of each (B, 2); the question is whether it is the second."""

    def __init__(
        self, loss: Loss, reported: Loss, classes: Sequence[str], device: torch.device, auxiliary: float,
        threshold: float | str,
    ) -> None:  # fmt: skip
        super().__init__(loss, reported, classes[1:], device, auxiliary, threshold)
        self.classes = list(classes)

    def compared(self, targets: Tensor) -> Tensor:
        return targets[:, 1:] if targets.is_floating_point() else targets[:, None].float()

    def meter(self) -> BinaryMeter:
        return BinaryMeter(self, self.device)

    def report(self) -> BinaryReport:
        return BinaryReport(self.classes, self.thresholds, self.compared)

    @property
    def columns(self) -> list[str]:
        """class, its probability, and the probability of each class."""
        own = ["class", "probability"]
        taken = {"path", *own, *self.classes}
        free = [free_name(f"probability of {name}", taken) if name in ("path", *own) else name for name in self.classes]
        return [*own, *free]

    def answers(self, outputs: Tensor, inputs: Tensor) -> list[dict[str, Any]]:
        found = []
        for positive, (probability,) in zip(
            self.decide(outputs)[:, 0].tolist(), self.probabilities(outputs), strict=True
        ):
            both = (1 - probability, probability)
            found.append({"class": self.classes[positive], "probability": both[positive],
                          "probabilities": dict(zip(self.classes, both, strict=True))})  # fmt: skip
        return found

    def outcomes(self, outputs: Tensor, targets: Tensor) -> BinaryOutcomes:
        yes = outputs.to(self.thresholds.dtype)
        both = torch.cat([(-yes).sigmoid(), yes.sigmoid()], dim=1).float()
        shown = (each.cpu().numpy() for each in (targets, self.decide(outputs)[:, 0].long(), both))
        return BinaryOutcomes(self.classes, *shown)

    def said(self, outputs: Tensor, inputs: Tensor) -> dict[str, Tensor]:
        """probabilities of both classes (B, 2), class (B,)."""
        yes = outputs.sigmoid()
        return {"probabilities": torch.cat([1 - yes, yes], 1), "class": self.decide(outputs)[:, 0].long()}

    def readings(self, outputs: Tensor) -> Readings:
        """Of no and of yes."""
        both = torch.cat([-outputs, outputs], 1)
        return Readings(both, both.to(self.thresholds.dtype).sigmoid(), self.decide(outputs)[:, 0].long())


class BuiltMultilabel(BuiltQuestions):
    """A target (B, K) says which labels an example has: 0 or 1, or between them where examples are mixed."""

    def meter(self) -> LabelsMeter:
        return LabelsMeter(self, self.device)

    def report(self) -> LabelsReport:
        return LabelsReport(self.questions, self.thresholds, self.compared)

    @property
    def columns(self) -> list[str]:
        """labels, those that are answered, and the probability of each label by its name."""
        taken = {"path", "labels"}
        return ["labels", *(free_name(name, taken) for name in self.questions)]

    def answers(self, outputs: Tensor, inputs: Tensor) -> list[dict[str, Any]]:
        return [
            {"labels": [name for name, yes in zip(self.questions, row, strict=True) if yes],
             "probabilities": dict(zip(self.questions, values, strict=True))}
            for row, values in zip(self.decide(outputs).tolist(), self.probabilities(outputs), strict=True)
        ]  # fmt: skip

    def outcomes(self, outputs: Tensor, targets: Tensor) -> LabelOutcomes:
        probabilities = outputs.to(self.thresholds.dtype).sigmoid().float()
        shown = (each.cpu().numpy() for each in (targets > 0.5, self.decide(outputs), probabilities))
        return LabelOutcomes(self.questions, *shown)

    def said(self, outputs: Tensor, inputs: Tensor) -> dict[str, Tensor]:
        """probabilities (B, K), and which labels are answered (B, K) bool."""
        return {"probabilities": outputs.sigmoid(), "labels": self.decide(outputs)}

    def readings(self, outputs: Tensor) -> Readings:
        """Of each label; the answer is the most probable one."""
        return Readings(outputs, outputs.to(self.thresholds.dtype).sigmoid(), outputs.argmax(1))


class QuestionsMeter(Meter):
    """The mean loss of training batches, and how often yes was answered rightly, wrongly, and not, at a probability of
    0.5. A mixed target counts as yes from more than half."""

    kinds = MappingProxyType(dict.fromkeys(("right", "wrong", "missed"), torch.int64))

    def __init__(self, task: BuiltQuestions, device: torch.device) -> None:
        self._task, self.shape = task, (len(task.questions),)
        super().__init__(device)

    def batch_sums(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        flat = self._task.compared(targets.flatten(0, 1)) > 0.5
        yes, true = outputs > 0, flat.view(outputs.shape)
        return {"right": (yes & true).sum(1), "wrong": (yes & ~true).sum(1), "missed": (~yes & true).sum(1)}


class BinaryMeter(QuestionsMeter):
    """Accuracy, precision, recall and F1 of training batches."""

    def values(self, sums: Mapping[str, Any], examples: int) -> dict[str, float]:
        (right,), (wrong,), (missed,) = (sums[name] for name in self.kinds)
        return {
            "accuracy": 1 - (wrong + missed) / examples, "precision": ratio(right, right + wrong),
            "recall": ratio(right, right + missed), "f1": f1_of(right, wrong, missed),
        }  # fmt: skip


class LabelsMeter(QuestionsMeter):
    """F1 of training batches, the mean over labels and of all answers together."""

    def values(self, sums: Mapping[str, Any], examples: int) -> dict[str, float]:
        rows = list(zip(*(sums[name] for name in self.kinds), strict=True))
        each = [f1_of(*row) for row in rows if sum(row)]
        return {
            "macro_f1": sum(each) / max(len(each), 1),
            "micro_f1": f1_of(*(sum(sums[name]) for name in self.kinds)),
        }
