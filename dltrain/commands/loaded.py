"""A trained network for programs in Python: what `predict` answers, features, and the plain module.

paths, pictures, arrays or rows -> by the preprocessing of evaluation -> answers, as those of the command
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dltrain.commands.calibrating import use_calibration
from dltrain.commands.evaluate import find_checkpoint
from dltrain.commands.predict import decoded, image_files, require_files, table_parts
from dltrain.data.evaluation import Views
from dltrain.data.images.decoding import decode, pixels_of, place
from dltrain.data.tables.encoding import Encoding
from dltrain.data.tables.reading import Column, Table
from dltrain.engine.predictor import Predictor, restore_predictor
from dltrain.errors import RequestError
from dltrain.experiment.experiment import Experiment
from dltrain.runs.run import Run
from dltrain.tasks.impl.objectives import answer_of

Picture: TypeAlias = "str | PathLike[str] | Image.Image | np.ndarray"
Asked: TypeAlias = "Picture | Sequence[Picture] | Mapping[str, Sequence[Any]]"
"""A file, a folder, a picture, an array; several of them; or the columns of a table by name."""
Batches = Iterator[tuple[list[str], Tensor]]
"""The names of examples, and the examples (B, ...) in the layout of evaluation."""


@dataclass(frozen=True)
class Predictions:
    """What a network answers, in the order in which it was asked.

    names: of the examples: paths, of rows with their number, else the number of each. answers: what `dltrain predict
    --format jsonl` writes of them, without the path. arrays: the same by name, (N, ...): `probabilities`, `class`,
    `labels`, `values`, `mse`, and `reconstructions`, scaled as the network sees images; as the task has them.
    temperature: by which the probabilities are calibrated; 1 where they are not.
    """

    names: list[str]
    answers: list[dict[str, Any]]
    arrays: dict[str, np.ndarray]
    temperature: float = 1.0

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.answers[index]

    @property
    def probabilities(self) -> np.ndarray:
        """(N, K). Raises RequestError for a task without."""
        return self._array("probabilities")

    @property
    def classes(self) -> list[str]:
        """The name of each example's class. Raises RequestError for a task without."""
        self._array("class")
        return [answer["class"] for answer in self.answers]

    @property
    def values(self) -> np.ndarray:
        """(N, n), in the units of the data. Raises RequestError for a task without."""
        return self._array("values")

    def _array(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise RequestError(f"there is no `{name}` in these answers, but {', '.join(self.arrays)}")
        return self.arrays[name]


class TrainedModel:
    """A run's network with its preprocessing. `load` makes it."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    @property
    def module(self) -> nn.Module:
        """The network itself, on its device, in evaluation mode: scaled inputs to outputs."""
        return self._predictor.model

    @property
    def names(self) -> list[str]:
        """Of the classes, labels or numbers."""
        return list(self._predictor.target.names)

    @property
    def temperature(self) -> float:
        """What the network's outputs are divided by before they become probabilities; 1 where nothing was fitted."""
        used = self._predictor.calibration
        return 1.0 if used is None else used.temperature

    @property
    def experiment(self) -> Experiment:
        """The resolved experiment."""
        return self._predictor.experiment

    def predict(self, asked: Asked, batch_size: int = 64) -> Predictions:
        """Answer. asked: paths of images, or of tables for a network of rows; a folder; PIL images; uint8 arrays
        (H, W), (H, W, C) or (N, H, W, C); a sequence of these; or a mapping of a table's columns to their values.

        Raises RequestError, RunError or ConfigError for what the network does not take.
        """
        task, names, answers = self._predictor.task, list[str](), list[dict[str, Any]]()
        parts: dict[str, list[np.ndarray]] = {}
        for which, batch in self._batches(asked, batch_size):
            outputs, inputs = answer_of(self._predictor.outputs(batch)), self._predictor.inputs(batch)
            names += which
            answers += task.answers(outputs, inputs)
            outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
            for name, values in task.said(outputs, inputs).items():
                parts.setdefault(name, []).append(values.cpu().numpy())
        if not names:
            raise RequestError("there is nothing to answer")
        return Predictions(
            names, answers, {name: np.concatenate(each) for name, each in parts.items()}, self.temperature
        )

    @torch.no_grad()
    def embed(self, asked: Asked, batch_size: int = 64) -> np.ndarray:
        """(N, D) float32: what the last layer with weights is given, of maps the mean over their pixels; of a network
        that reconstructs, its codes. Of several views, that of the central one. asked: as for `predict`."""
        found = []
        for _, batch in self._batches(asked, batch_size):
            inputs = self._predictor.inputs(batch)
            with self._predictor.autocast():
                found.append(features(self._predictor.model, inputs).float().cpu().numpy())
        if not found:
            raise RequestError("there is nothing to answer")
        return np.concatenate(found)

    def _batches(self, asked: Asked, batch_size: int) -> Batches:
        if isinstance(self._predictor.layout, Encoding):
            return self._rows(asked, batch_size)
        return self._pictures(asked, batch_size)

    def _rows(self, asked: Asked, batch_size: int) -> Batches:
        layout: Encoding = self._predictor.layout
        if isinstance(asked, Mapping):
            table = table_of_columns(asked, layout)
            for start in range(0, len(table), batch_size):
                part = table.at(np.arange(start, min(start + batch_size, len(table))))
                yield [str(start + place) for place in range(len(part))], layout.encode(part)
            return
        if not _are_paths(asked):
            raise RequestError("the network takes rows: give it paths of tables, or a mapping of columns to values")
        header = getattr(self.experiment.data, "header", None)
        for which, part in table_parts(_paths(asked), [layout], header, batch_size):
            yield [f"{one['path']}:{one['row']}" for one in which], layout.encode(part)

    def _pictures(self, asked: Asked, batch_size: int) -> Batches:
        channels, canvas = require_files(self._predictor), self._predictor.layout
        if isinstance(asked, Mapping):
            raise RequestError("the network takes images, and columns of a table were given")
        if _are_paths(asked):
            for batch in decoded(image_files(_paths(asked)), [(canvas, channels)], batch_size):
                yield [str(path) for path, _ in batch], torch.stack([future.result()[0] for _, future in batch])
            return
        images = (place(image, canvas)[0] for image in _images(asked, channels, canvas))
        start = 0
        while several := list(islice(images, batch_size)):
            yield [str(start + place) for place in range(len(several))], torch.stack(several)
            start += len(several)


def load(
    path: str | PathLike[str], *, checkpoint: str = "best", device: str = "auto", views: Views | None = None,
    share: float | None = None, calibrated: bool = True,
) -> TrainedModel:  # fmt: skip
    """The trained network of a run or checkpoint, to be asked from Python.

    checkpoint: `best` or `last`. device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`. views, share: what is seen of each
    image, by default what the experiment says. calibrated: whether a temperature that `eval --calibrate` has kept
    beside the checkpoint is used: `temperature` says so. Raises RunError when there is no such run, or its weights are
    not those of its network, and for a temperature of another checkpoint.
    """
    run, given = Run.open(Path(path))
    file, state = find_checkpoint(run, given, checkpoint)
    predictor = restore_predictor(state, device, file)
    predictor.look(views, share)
    if calibrated:
        use_calibration(predictor, file)
    return TrainedModel(predictor)


def features(network: nn.Module, inputs: Tensor) -> Tensor:
    """(B, D): see `TrainedModel.embed`. inputs: (B, ...), as the network takes them."""
    codes: Callable[[Tensor], Tensor] | None = getattr(network, "codes", None)
    if codes is not None:
        return codes(inputs).flatten(1)
    seen: list[Tensor] = []
    layers = [module for module in network.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    hooks = [layer.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for layer in layers]
    try:
        network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    last = seen[-1] if seen else inputs
    return last.flatten(2).mean(2) if last.ndim == 4 else last.reshape(len(inputs), -1)


def table_of_columns(columns: Mapping[str, Sequence[Any]], layout: Encoding) -> Table:
    """Values by column as a table with the columns of a layout: None, NaN and "" are missing.

    Raises ConfigError when a column is missing, RequestError for columns of different lengths, or none.
    """
    made, lengths = {}, {name: len(values) for name, values in columns.items()}
    if len({*lengths.values()}) != 1:
        raise RequestError(f"the columns must have one length, and they have {lengths}")
    categories = {feature.column for feature in layout.features if feature.categories is not None}
    for name, values in columns.items():
        known = ["" if value is None or value != value else value for value in values]  # NaN equals nothing
        if name in categories or any(isinstance(value, str) and value for value in known):
            texts = [value if isinstance(value, str) else f"{value:.12g}" for value in known]
            made[name] = Column(name, words=np.array([text.strip() for text in texts], dtype=str))
        else:
            numbers = [np.nan if isinstance(value, str) else float(value) for value in known]
            made[name] = Column(name, numbers=np.array(numbers, dtype=np.float64))
    return Table("the columns", made).only(layout.columns)


def _are_paths(asked: Any) -> bool:
    if isinstance(asked, (np.ndarray, Image.Image)):
        return False
    return isinstance(asked, (str, PathLike)) or all(isinstance(each, (str, PathLike)) for each in asked)


def _paths(asked: Any) -> list[Path]:
    """Of a path, or a sequence of them."""
    return [Path(path) for path in ([asked] if isinstance(asked, (str, PathLike)) else asked)]


def _images(asked: Any, channels: int, canvas: Any) -> Iterator[Tensor]:
    """(C, H, W) uint8 of one picture, an array of one or several, or a sequence of these and of paths.

    Raises RequestError for anything else, ConfigError for a file that cannot be read.
    """
    if isinstance(asked, Image.Image):
        yield pixels_of(asked, channels, canvas)
    elif isinstance(asked, (str, PathLike)):
        yield decode(asked, channels, canvas)
    elif isinstance(asked, np.ndarray):
        for array in asked if asked.ndim == 4 else [asked]:
            yield _tensor(array, channels)
    elif isinstance(asked, Sequence):
        for each in asked:
            yield from _images(each, channels, canvas)
    else:
        raise RequestError(f"a {type(asked).__name__} is no image: give paths, PIL images or uint8 arrays")


def _tensor(array: np.ndarray, channels: int) -> Tensor:
    """(C, H, W) of an array (H, W) or (H, W, C)."""
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or not array.size:
        raise RequestError(f"an image is uint8, (H, W) or (H, W, C), and not {array.dtype} of shape {array.shape}")
    image = array[:, :, None] if array.ndim == 2 else array
    if image.shape[2] != channels:
        raise RequestError(f"the image has {image.shape[2]} channels, and the network takes {channels}")
    return torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)
