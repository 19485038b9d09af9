"""Whether an exported file answers as its run does: a split goes through both, from raw files. Imports torch.

raw examples -> the file by its own runtime ---------------------------> answers of the file
             -> what evaluation makes of them -> the network in torch -> answers of the run
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dltrain.data.targets import as_tensor
from dltrain.data.types import Source
from dltrain.engine.predictor import Predictor
from dltrain.export.graph import OUTPUTS
from dltrain.export.raw import Raw, placed, raw_of
from dltrain.tasks.impl.meters import Report
from dltrain.tasks.impl.objectives import answer_of

Answers = dict[str, np.ndarray]
Runner = Callable[[Raw], Answers]
"""Raw examples to answers by name, each (n, ...)."""
TOLERANCE = 1e-3
"""By how much an answer may differ by default."""
AGREEMENT = 0.999
"""Share of the examples that must get the same class, or the same labels."""
BATCH = 64
TIMED, WARM = 20, 3
"""Examples whose time is taken, and those before them."""
CONFIDENCE = 0.95
DECISIONS = ("class", "labels")
"""The answers that are equal, or not."""


@dataclass
class Comparison:
    """What a split says about two that should answer alike: the run, and the file that was made of it."""

    examples: int = 0
    largest: float = 0.0
    """Difference of an answer: of a probability, or of a network's output."""
    worst: str = ""
    """The name of the example that has it."""
    agreeing: int | None = None
    """Examples with the same class or labels; None where answers are numbers."""
    changed: int = 0
    """Examples that the run's own reading sees otherwise than the file: large JPEG files, which it decodes smaller."""
    as_eval: int = 0
    """Examples with the class or labels that `eval` has of them, which may read and compute otherwise than the file."""
    reports: dict[str, Report] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"run": [], "file": []})

    @property
    def agreement(self) -> float | None:
        """The share of examples with the same decision."""
        return None if self.agreeing is None else self.agreeing / self.examples

    def passes(self, tolerance: float) -> bool:
        """Whether the file may be given away."""
        same = self.agreement is None or self.agreement >= AGREEMENT
        return same and self.largest <= tolerance  # false, too, for what is no number

    def told(self, tolerance: float) -> str:
        """Why it may not."""
        parts = []
        if not self.largest <= tolerance:
            parts.append(f"differ by up to {self.largest:.3g}, at {self.worst}, and --tolerance is {tolerance:g}")
        if self.agreement is not None and self.agreement < AGREEMENT:
            parts.append(f"agree on {self.agreement:.2%} of {self.examples:,} examples, and {AGREEMENT:.1%} is needed")
        return f"the answers of the file and of the run {', and '.join(parts)}"

    def to_dict(self) -> dict[str, Any]:
        """For export.json."""
        measured = {name: _metrics(report, self.examples) for name, report in self.reports.items()}
        times = {name: 1000 * statistics.median(each) for name, each in self.seconds.items() if each}
        return {
            "examples": self.examples, "difference": self.largest, "worst": self.worst,
            **({} if self.agreement is None else
               {"agreement": self.agreement, "agreement_with_eval": self.as_eval / self.examples}),
            **({"read_smaller_by_eval": self.changed} if self.changed else {}),
            "metrics": measured, "latency_ms": {name: round(value, 3) for name, value in times.items()},
        }  # fmt: skip


def compare(
    predictor: Predictor, runner: Runner, source: Source, evaluating: Predictor | None = None
) -> Comparison:  # fmt: skip
    """Put the examples of a split through both. predictor: `in_float32`. evaluating: as `eval` computes, whose metrics
    and times are those of the run; None: the predictor.

    Raises ConfigError naming a file that cannot be read.
    """
    evaluating = evaluating or predictor
    found, task = Comparison(), predictor.measuring_task(combined=not predictor.evaluation.is_plain)
    found.reports = {"run": task.report(), "file": task.report()}
    names = source.names()
    for indices in chunks(len(source)):
        raw = list(raw_of(source, indices, predictor.layout))
        own = source.load(indices, predictor.layout)[0]
        seen = _seen(raw, own, predictor, source)
        by_file = joined([runner(each) for each in raw])
        by_run = answer_of(predictor.outputs(seen))
        _add(found, predictor, by_run, by_file, seen, [names[index] for index in indices])
        read = own if task.learns_inputs else seen
        for changed in range(len(own) if own is not seen else 0):
            found.changed += not torch.equal(own[changed], seen[changed])
        targets = predictor.inputs(read) if task.learns_inputs else as_tensor(source.targets[indices])
        as_eval = by_run
        if own is not seen or evaluating is not predictor:
            as_eval = answer_of(evaluating.outputs(own))
        found.as_eval += _agreeing(predictor.task.said(as_eval.float(), predictor.inputs(own)), by_file) or 0
        task.measure(found.reports["run"], as_eval, targets, len(indices))
        task.measure(found.reports["file"], torch.from_numpy(by_file[OUTPUTS]), targets, len(indices))
        if found.examples == len(indices):
            _time(found, evaluating, runner, raw)
    return found


def wilson(right: int, examples: int) -> list[float]:
    """The interval of a proportion that holds the true one with 95 % confidence (Wilson 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(right, examples).proportion_ci(CONFIDENCE, method="wilson")
    return [float(interval.low), float(interval.high)]


def _seen(raw: list[Raw], own: Tensor, predictor: Predictor, source: Source) -> Tensor:
    """The raw examples in the layout of evaluation: `own`, but for files that are decoded smaller for it."""
    if source.files is None:
        return own
    seen = torch.cat([placed(each, predictor.layout) for each in raw])
    return own if torch.equal(seen, own) else seen


def _add(
    found: Comparison, predictor: Predictor, by_run: Tensor, by_file: Answers, seen: Tensor, names: list[str]
) -> None:
    """Add a batch to what is known of the differences."""
    said = {**predictor.task.said(by_run, predictor.inputs(seen)), OUTPUTS: by_run}
    compared = "probabilities" if "probabilities" in said else OUTPUTS
    distances = np.abs(said[compared].double().numpy() - by_file[compared]).reshape(len(names), -1).max(1)
    worst = int(np.argmax(np.where(np.isnan(distances), math.inf, distances)))
    if not distances[worst] <= found.largest or not found.worst:
        found.largest, found.worst = float(distances[worst]), names[worst]
    found.examples += len(names)
    same = _agreeing(said, by_file)
    found.agreeing = None if same is None else (found.agreeing or 0) + same


def _agreeing(said: Mapping[str, Tensor], by_file: Answers) -> int | None:
    """How many examples have the same class or labels in both; None where the answers are numbers."""
    for decision in DECISIONS:
        if decision in said:
            return int((said[decision].numpy() == by_file[decision]).reshape(len(by_file[decision]), -1).all(1).sum())
    return None


def _time(found: Comparison, predictor: Predictor, runner: Runner, raw: list[Raw]) -> None:
    """How long single examples take each of both, preprocessing included."""
    single = [{name: values[:1] for name, values in each.items()} for each in raw]
    single = (single * (TIMED + WARM))[: TIMED + WARM]
    for number, each in enumerate(single):
        started = time.perf_counter()
        runner(each)
        half = time.perf_counter()
        predictor.outputs(placed(each, predictor.layout))
        if number >= WARM:
            found.seconds["file"].append(half - started)
            found.seconds["run"].append(time.perf_counter() - half)


def chunks(count: int) -> Iterator[np.ndarray]:
    """The places of `count` examples, a batch at a time."""
    for start in range(0, count, BATCH):
        yield np.arange(start, min(start + BATCH, count))


def joined(parts: list[Answers]) -> Answers:
    """The answers to several parts of a batch, as those to all of it."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _metrics(report: Report, examples: int) -> dict[str, Any]:
    """What is measured, and the interval of an accuracy."""
    values: dict[str, Any] = {name: value for name, value in report.compute().items() if math.isfinite(value)}
    if "accuracy" in values:
        values["accuracy_interval"] = wilson(round(values["accuracy"] * examples), examples)
    return values
