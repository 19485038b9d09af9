"""A trained network with all that stands before and behind it, as one module of tensors. Imports torch.

raw images or rows -> what evaluation makes of them -> the network, in all its views -> what its task says
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.config import ConfigError
from dltrain.data.loading.views import central
from dltrain.data.tables.encoding import Encoding
from dltrain.data.types import Canvas, ImageShape
from dltrain.engine.predictor import Predictor
from dltrain.engine.views import answer
from dltrain.export.resampling import Resample
from dltrain.tasks.impl.objectives import answer_of

OUTPUTS, INPUTS = "outputs", "inputs"
"""The names of what the network puts out, and of what it was given, where that is what it should put out."""


def in_float32(predictor: Predictor) -> Predictor:
    """The predictor with weights and numbers of 32 bits and the usual layout in memory, as exported files compute."""
    model = copy.deepcopy(predictor.model).float().to(memory_format=torch.contiguous_format)
    scaling = predictor.preprocessing.scaling.on(torch.device("cpu"))
    pipeline = replace(predictor.pipeline, scaling=scaling)
    return replace(predictor, model=model, pipeline=pipeline, autocast=nullcontext)


class Graph(nn.Module):
    """Raw inputs -> a tensor (N, ...) for each of `names`. predictor: on the CPU, `in_float32`.

    Raises ConfigError for what cannot be done for each example by itself.
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        experiment, evaluation = predictor.experiment, predictor.evaluation
        if not evaluation.is_plain and evaluation.share != 1:
            message = "with `evaluation.share` below 1, what is seen of an image depends on the others in its batch"
            note = "export it with --views center_crop, or with `--views-share 1`"
            raise ConfigError([experiment.error("evaluation.share", message, note).diagnostics[0]])
        self.network = predictor.model
        self._predictor = predictor
        with torch.no_grad():
            shape = predictor.preprocessing.shape
            self.names = list(self._said(shape.example(2)))

    def _said(self, examples: Tensor) -> dict[str, Tensor]:
        """By name, of examples as evaluation sees them: (N, C, H, W) in 0..255, or (N, D)."""
        predictor, task = self._predictor, self._predictor.task
        shape, scaling = predictor.preprocessing.shape, predictor.pipeline.scaling

        def network(inputs: Tensor) -> Any:
            return self.network(scaling.apply(inputs))

        seeing = predictor.untempered or task
        outputs = answer_of(predictor.tempered(answer(seeing, network, examples, shape, predictor.evaluation, 1)))
        inputs = scaling.apply(central(examples, shape))
        said = task.said(outputs, inputs)
        if task.learns_inputs and isinstance(shape, ImageShape):
            pixels = scaling.invert(said["reconstructions"]).clamp(0, 255)
            said = {**said, "reconstructions": pixels.permute(0, 2, 3, 1)}
        said = {name: values.float() if values.is_floating_point() else values for name, values in said.items()}
        return {**said, OUTPUTS: outputs.float(), **({INPUTS: inputs} if task.learns_inputs else {})}


class ImageGraph(Graph):
    """images: (N, H, W, C) uint8, of any size, as decoders give them."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor)
        canvas: Canvas = predictor.layout
        self.resample = Resample(canvas)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._said(self.resample(images)).values())


class RowGraph(Graph):
    """numbers: (N, F) float64, NaN where a value is missing; codes: (N, K) int64, the place of each word among its
    column's categories, -1 for any other. Both in the order of the encoding's features; what there is none of is left
    out."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor)
        encoding: Encoding = predictor.preprocessing.evaluation
        self.encoding = encoding
        self._whitening: tuple[Tensor, Tensor] | None = None
        if (found := encoding.whitening) is not None:
            self._whitening = torch.from_numpy(found.mean.copy()), torch.from_numpy(found.matrix.copy())

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        numbers, codes = inputs[0], inputs[-1]
        parts, number, word = [], 0, 0
        for feature in self.encoding.features:
            if feature.categories is not None:
                places = torch.arange(len(feature.categories))
                parts.append((codes[:, word, None] == places).double())
                word += 1
                continue
            values, number = numbers[:, number], number + 1
            gone = values.isnan()
            if feature.filling is not None:
                values = torch.where(gone, torch.full_like(values, feature.filling), values)
            parts.append(((values - feature.mean) / feature.std)[:, None])
            if feature.indicator:
                parts.append(gone.double()[:, None])
        rows = torch.cat(parts, dim=1)
        if self._whitening is not None:
            mean, matrix = self._whitening
            rows = (rows - mean) @ matrix
        return tuple(self._said(rows.float()).values())


def graph_of(predictor: Predictor) -> ImageGraph | RowGraph:
    """The graph of a predictor's images or rows. Raises ConfigError as `Graph` does."""
    is_image = isinstance(predictor.preprocessing.shape, ImageShape)
    return (ImageGraph if is_image else RowGraph)(predictor).eval()
