"""A graph -> what torch.export keeps of it: for programs with torch, and without dltrain or the network's code."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch

from dltrain.engine.predictor import Predictor
from dltrain.export.about import About, Inputs
from dltrain.export.checking import Answers, Runner
from dltrain.export.formats import Format
from dltrain.export.graph import Graph
from dltrain.export.onnx_file import program_of
from dltrain.export.raw import Raw


class Program(Format):
    """A `.pt2` file, for `torch.export.load`."""

    suffix = ".pt2"

    def require(self) -> None:
        """torch is here."""

    def content(self, predictor: Predictor, graph: Graph, about: About) -> dict[str, bytes]:
        buffer = io.BytesIO()
        torch.export.save(program_of(predictor, graph), buffer, extra_files=about.to_texts())
        return {self.suffix: buffer.getvalue()}

    def runner(self, content: dict[str, bytes], predictor: Predictor, about: About) -> Runner:
        texts = dict.fromkeys(about.to_texts(), "")
        module = torch.export.load(io.BytesIO(content[self.suffix]), extra_files=texts).module()
        told = About.from_texts(texts, self.suffix)

        @torch.no_grad()
        def run(raw: Raw) -> Answers:
            given = [torch.from_numpy(values) for values in _coded(raw, told.inputs)]
            return {name: values.numpy() for name, values in zip(told.outputs, module(*given), strict=True)}

        return run


def _coded(raw: Raw, inputs: Inputs) -> Sequence[np.ndarray]:
    """Raw examples as the graph takes them: words as the places that they have among their column's categories."""
    if "categories" not in raw:
        return list(raw.values())
    known = [each["categories"] for each in inputs.features if each["categories"] is not None]
    places = [{word: place for place, word in enumerate(each)} for each in known]
    codes = [[of.get(word, -1) for of, word in zip(places, row, strict=True)] for row in raw["categories"].tolist()]
    numbers = [raw["numbers"]] if "numbers" in raw else []
    return [*numbers, np.array(codes, dtype=np.int64)]
