"""The formats of exported files: what each writes, and how its content is run to be checked. Imports torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from dltrain.engine.predictor import Predictor
from dltrain.export.about import About
from dltrain.export.checking import Runner
from dltrain.export.graph import Graph, graph_of
from dltrain.export.onnx_file import OPSET, onnx_of, require_onnx, require_opset
from dltrain.export.session import SUFFIX, Session


@dataclass(frozen=True)
class Format(ABC):
    """A way to write a trained network down. opset: of ONNX, None for the usual one."""

    suffix: ClassVar[str]
    """What names of such files end with."""
    opset: int | None = None

    @abstractmethod
    def require(self) -> None:
        """Raise RequestError when it cannot be written here, whatever the network."""

    @abstractmethod
    def content(self, predictor: Predictor, graph: Graph, about: About) -> dict[str, bytes]:
        """What is written: the content of the file under its suffix, and that of files beside it under their names.

        Raises ConfigError for a network that has no such form, RequestError for one that is too large.
        """

    @abstractmethod
    def runner(self, content: bytes, about: About) -> Runner:
        """What answers from the content alone."""

    def graph(self, predictor: Predictor) -> Graph:
        """What is written, as a module."""
        return graph_of(predictor)


class Onnx(Format):
    """ONNX, for onnxruntime and all that reads it."""

    suffix = SUFFIX

    def require(self) -> None:
        require_onnx()
        require_opset(OPSET if self.opset is None else self.opset)

    def content(self, predictor: Predictor, graph: Graph, about: About) -> dict[str, bytes]:
        return {self.suffix: onnx_of(predictor, graph, about, OPSET if self.opset is None else self.opset)}

    def runner(self, content: bytes, about: About) -> Runner:
        return Session(content, f"model{self.suffix}", torch.get_num_threads()).run


FORMATS: dict[str, type[Format]] = {"onnx": Onnx}
