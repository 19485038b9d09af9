"""The part of `export` that knows of fewer bits: a file in int8 and whether it may be given away, and the table of all
precisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dltrain.config import ConfigError
from dltrain.console.display import Display
from dltrain.data.types import Source
from dltrain.engine.predictor import Predictor
from dltrain.evidence.losing import Loss
from dltrain.export.about import About, ForeignError
from dltrain.export.checking import Runner
from dltrain.export.formats import Format
from dltrain.export.precisions import Form, Measured, loss_dict, measure, table_of, told, torch_forms
from dltrain.export.quantized import CALIBRATION, Quantized, UnquantizableError, chosen, quantize
from dltrain.export.raw import raw_of

LOSS = 0.02
"""What int8 may lose by default."""


@dataclass(frozen=True)
class Bits:
    """What was found. made: in int8, where that can be; measured: float32 by onnxruntime first. calibrated: by how many
    training examples."""

    made: Quantized | None
    runner: Runner | None
    measured: Sequence[Measured]
    calibrated: int
    seed: int

    @property
    def loss(self) -> Loss | None:
        """Of int8 against float32."""
        return next((each.loss for each in self.measured if each.form.precision == "int8"), None)

    def verdict(self, tolerance: float) -> str:
        """Whether int8 may be given away, in words; empty where there is none."""
        examples = len(self.measured[0].table)
        return "" if self.loss is None else told(self.loss, tolerance, examples)

    def to_dict(self, tolerance: float) -> dict[str, Any]:
        """For export.json: what was measured of each precision, and of int8 the test that decides."""
        values: dict[str, Any] = {"precisions": [each.to_dict() for each in self.measured]}
        if self.made is not None and self.loss is not None:
            made = self.made
            values["int8"] = {
                "accepted": self.loss.within(tolerance), "tolerance": tolerance, "loss": loss_dict(self.loss),
                "layers": made.layers, "weights": made.weights, "of_weights": made.of_weights,
                "calibration": {"split": "train", "examples": self.calibrated, "seed": self.seed},
            }  # fmt: skip
        return values

    def table(self, predictor: Predictor) -> str:
        """For a terminal."""
        return table_of(self.measured, predictor.experiment.resolved_task.ranking()[0])


def in_fewer_bits(
    written: Format, content: dict[str, bytes], predictor: Predictor, about: About, train: Source, source: Source,
    display: Display, *, every: bool, needed: bool,
) -> Bits:  # fmt: skip
    """Quantise an ONNX file by examples of `train`, and measure it and the float32 one on `source`.

    every: also by torch, in all of its precisions. needed: raise ConfigError where there is no int8; else it is noted.
    """
    raw = next(iter(raw_of(source, np.arange(1), predictor.layout)))
    forms = [Form("float32", "onnxruntime", written.runner(content, predictor, about), len(content[written.suffix]))]
    if every:
        others, notes = torch_forms(predictor, raw)
        forms += others
        for note in notes:
            display.note(note)
    experiment = predictor.experiment
    targets = np.zeros(len(train)) if predictor.task.learns_inputs else np.asarray(train.targets)
    places = chosen(targets, CALIBRATION, experiment.seed)
    display.waiting(f"finding the ranges of int8 by {len(places):,} {train.words}")
    made = runner = None
    try:
        made = quantize(content[written.suffix], raw_of(train, places, predictor.layout))
        runner = written.runner({written.suffix: made.content}, predictor, about)
        forms.append(Form("int8", "onnxruntime", runner, len(made.content)))
    except (UnquantizableError, ForeignError) as error:
        refused: ConfigError = experiment.error("model", f"model `{experiment.model.name}` has no int8: {error}")
        if needed:
            raise refused from None
        display.note(refused.diagnostics[0].message)
    display.waiting(f"measuring {len(source):,} {source.words} in {len(forms)} forms")
    found = measure(forms, predictor, source, experiment.resolved_task.ranking())
    return Bits(made, runner, found, len(places), experiment.seed)
