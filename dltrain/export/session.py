"""An exported ONNX file, opened: what it says of itself, and its answers. onnxruntime and numpy, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from dltrain.errors import RequestError
from dltrain.export.about import About, ForeignError

SUFFIX = ".onnx"


class Session:
    """What `dltrain export` wrote, or is about to write.

    Raises RequestError when onnxruntime is not installed, ForeignError for a content that is no such file.
    """

    def __init__(self, content: bytes, path: str | Path, threads: int = 0) -> None:
        """path: of the file. threads: that answer together; 0: as many as there are cores."""
        self.path = Path(path)
        self._session = _opened(content, str(path), threads)
        self.about = About.from_texts(self._session.get_modelmeta().custom_metadata_map, str(path))

    @classmethod
    def open(cls, path: str | Path, threads: int = 0) -> Session:
        """The file at `path`. Raises ForeignError, too, when it cannot be read."""
        try:
            content = Path(path).read_bytes()
        except FileNotFoundError:
            raise ForeignError(f"there is no file {path}") from None
        except OSError as error:
            raise ForeignError(f"{path} cannot be read: {error.strerror or error}") from None
        return cls(content, path, threads)

    def run(self, inputs: Mapping[str, np.ndarray], names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """The outputs of these names, or all, each (N, ...). inputs: `images`, or `numbers` and `categories`; see
        `Inputs`. Raises ValueError for inputs of other shapes or types."""
        names = list(names or self.about.outputs)
        try:
            found: list[Any] = self._session.run(names, dict(inputs))
        except Exception as error:  # onnxruntime's own kinds, which are not public
            raise ValueError(f"{self.path}: {str(error).splitlines()[0][:300]}") from None
        return dict(zip(names, found, strict=True))


def _opened(content: bytes, path: str, threads: int) -> Any:
    if find_spec("onnxruntime") is None:
        raise RequestError("ONNX files are run by onnxruntime, which is not installed: pip install 'dltrain[export]'")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds, which are not public
        reason = str(error).splitlines()[0][:200]
        raise ForeignError(f"{path} is not an ONNX file that can be run: {reason}") from None
