"""What fewer bits cost and gain: the same examples through the same network in several precisions. Imports torch.

split -> float32, bfloat16, float16 by torch; float32, int8 by onnxruntime -> answers, time and size of each
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dltrain.data.targets import as_tensor
from dltrain.data.types import Source
from dltrain.engine.predictor import Predictor
from dltrain.errors import RequestError
from dltrain.evidence.comparing import Score, scores
from dltrain.evidence.examples import Collector, ExampleTable
from dltrain.evidence.losing import Loss, loss_of
from dltrain.export.checking import TIMED, WARM, Answers, Runner, chunks, joined
from dltrain.export.graph import OUTPUTS
from dltrain.export.raw import Raw, placed, raw_of
from dltrain.tasks.impl.objectives import answer_of
from dltrain.tasks.metrics import Metric

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""What torch computes in: weights, inputs and all between are cast; preprocessing stays in float32."""


@dataclass(frozen=True)
class Form:
    """A form of a network. bytes: of its weights and buffers, or of its file."""

    precision: str
    runtime: str
    run: Runner
    bytes: int


@dataclass(frozen=True)
class Measured:
    """What a split says of a form. milliseconds: that one example takes, preprocessing included; the median."""

    form: Form
    table: ExampleTable
    scores: dict[str, Score]
    milliseconds: float
    loss: Loss | None = None
    """Against the first form; None of that one itself."""

    def to_dict(self) -> dict[str, Any]:
        """For export.json."""
        form = self.form
        values: dict[str, Any] = {"precision": form.precision, "runtime": form.runtime}
        for name, score in self.scores.items():
            values |= {name: score.value, f"{name}_interval": [score.interval.low, score.interval.high]}
        values |= {"bytes": form.bytes, "latency_ms": round(self.milliseconds, 4)}
        return values if self.loss is None else {**values, "loss_of": loss_dict(self.loss)}


def loss_dict(loss: Loss) -> dict[str, Any]:
    """For export.json, without what there is none of."""
    return {name: value for name, value in asdict(loss).items() if value is not None}


def torch_forms(predictor: Predictor, raw: Raw) -> tuple[list[Form], list[str]]:
    """The forms that torch computes here, and a sentence for each that it cannot. raw: examples to try it with."""
    found, notes = [], []
    for name, kind in TYPES.items():
        network = _Cast(copy.deepcopy(predictor.model).to(kind), kind).eval()
        form = Form(name, "torch", _runner(replace(predictor, model=network)), _size(network))
        try:
            form.run({key: values[:1] for key, values in raw.items()})
        except (RuntimeError, TypeError) as error:  # an operation without a form in this type
            lines = [*str(error).splitlines(), type(error).__name__]
            notes.append(f"torch cannot compute this network in {name} here: {lines[0][:150]}")
        else:
            found.append(form)
    return found, notes


def measure(forms: Sequence[Form], predictor: Predictor, source: Source, metrics: Sequence[Metric]) -> list[Measured]:
    """Put the examples of a split through all forms, and compare each with the first. predictor: `in_float32`, which
    knows what outputs mean. metrics: the task's, first the one that ranks.

    Raises ConfigError naming a file that cannot be read, RequestError for a split too large to be compared by example.
    """
    task = predictor.measuring_task(combined=not predictor.evaluation.is_plain)
    collectors = [Collector({}, len(source)) for _ in forms]
    times: list[list[float]] = []
    for indices in chunks(len(source)):
        raw = list(raw_of(source, indices, predictor.layout))
        targets = _inputs(raw, predictor) if task.learns_inputs else as_tensor(source.targets[indices])
        for form, collector in zip(forms, collectors, strict=True):
            outputs = torch.from_numpy(joined([form.run(each) for each in raw])[OUTPUTS])
            losses = task.measured_losses(outputs, targets)
            collector.add(task.outcomes(outputs, targets), losses.numpy())
        times = times or _timed(forms, raw)
    tables = [table for collector in collectors if (table := collector.table()) is not None]
    if len(tables) < len(forms):
        raise RequestError(f"the split is too large to be compared example by example: {len(source):,}")
    return [
        Measured(form, table, scores(table, metrics), 1000 * statistics.median(spent),
                 loss_of(tables[0], table, metrics) if place else None)
        for place, (form, table, spent) in enumerate(zip(forms, tables, times, strict=True))
    ]  # fmt: skip


def table_of(found: Sequence[Measured], metric: Metric) -> str:
    """For a terminal: a line a form."""
    shown = metric.name if metric.name in found[0].scores else next(iter(found[0].scores))
    lines = [f"{'precision':<10} {'by':<12} {shown:>10}  {'95 % interval':<18} {'loss below':>10} {'MB':>8} {'ms':>8}"]
    for each in found:
        score, loss = each.scores[shown], each.loss
        interval = f"{score.interval.low:.4f} to {score.interval.high:.4f}"
        bound = "" if loss is None else f"{loss.bound:.2%}"
        sizes = f"{each.form.bytes / 1e6:>8.2f} {each.milliseconds:>8.3f}"
        named = f"{each.form.precision:<10} {each.form.runtime:<12} {score.value:>10.4f}"
        lines.append(f"{named}  {interval:<18} {bound:>10} {sizes}")
    return "\n".join(lines)


def told(loss: Loss, tolerance: float, examples: int) -> str:
    """The verdict in words."""
    what = loss.metric if loss.scale == "difference" else f"{loss.metric}, relatively"
    alone = ""
    if loss.first_alone is not None:
        alone = f"; float32 alone is right on {loss.first_alone}, int8 alone on {loss.second_alone}"
    said = f"in 8 bits, {what}: a loss of {loss.value:.2%}, below {loss.bound:.2%} with 95 % confidence"
    verdict = "within" if loss.within(tolerance) else "beyond"
    test = f"one-sided p = {loss.p:.2g}, {loss.method}, {examples:,} examples{alone}"
    return f"{said}, {verdict} --tolerance {tolerance:.2%} ({test})"


class _Cast(nn.Module):
    """A network in another type, between inputs and outputs of 32 bits."""

    def __init__(self, network: nn.Module, kind: torch.dtype) -> None:
        super().__init__()
        self.network, self.kind = network, kind

    def forward(self, inputs: Tensor) -> Tensor:
        return answer_of(self.network(inputs.to(self.kind))).float()


def _runner(predictor: Predictor) -> Runner:
    def run(raw: Raw) -> Answers:
        return {OUTPUTS: answer_of(predictor.outputs(placed(raw, predictor.layout))).numpy()}

    return run


def _inputs(raw: Sequence[Raw], predictor: Predictor) -> Tensor:
    return predictor.inputs(torch.cat([placed(each, predictor.layout) for each in raw]))


def _size(network: nn.Module) -> int:
    tensors = [*network.parameters(), *network.buffers()]
    return sum(each.numel() * each.element_size() for each in tensors)


def _timed(forms: Sequence[Form], raw: Sequence[Mapping[str, np.ndarray]]) -> list[list[float]]:
    """Seconds that single examples take each form: all forms in turn, so that what else the machine does is shared."""
    single = [{name: values[place : place + 1] for name, values in each.items()}
              for each in raw for place in range(len(next(iter(each.values()))))]  # fmt: skip
    single = (single * (TIMED + WARM))[: TIMED + WARM]
    found: list[list[float]] = [[] for _ in forms]
    for number, each in enumerate(single):
        for form, spent in zip(forms, found, strict=True):
            started = time.perf_counter()
            form.run(each)
            if number >= WARM:
                spent.append(time.perf_counter() - started)
    return found
