"""What a format of exported files is: what it writes, and how its content is run to be checked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from dltrain.engine.predictor import Predictor
from dltrain.export.about import About
from dltrain.export.checking import Runner
from dltrain.export.graph import Graph, graph_of


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
    def runner(self, content: dict[str, bytes], predictor: Predictor, about: About) -> Runner:
        """What answers from the content alone. predictor: what else a file that is weights alone needs."""

    def notes(self, content: dict[str, bytes]) -> list[str]:
        """What there is to say of the content, in sentences."""
        return []

    def graph(self, predictor: Predictor) -> Graph:
        """What is written, as a module."""
        return graph_of(predictor)
