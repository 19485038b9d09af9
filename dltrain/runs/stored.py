"""What the files of a run hold, as data: their names, types, shapes and ranges, checked before anything is used.

A digest says that a file is as it was written, not who wrote it. `require_checkpoint` and `require_environment` raise
StoredError, which names the field; what passes may be used without looking.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, Discriminator, Field, Tag, ValidationError, field_validator, model_validator
from torch import Tensor

from dltrain.console.streams import printable
from dltrain.errors import RunError
from dltrain.runs.stored_preprocessing import (
    ImagePreprocessingData,
    RowPreprocessingData,
    StoredData,
    Text,
)

SHOWN = 3
"""Mistakes in one message."""
LONGEST = 60
"""Letters of a name in a message."""
PLAIN = (dict, OrderedDict, list, tuple, str, int, float, bool, type(None), Tensor)

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class StoredError(RunError):
    """Which field of a file is not what dltrain writes, and what it should be."""


class DecisionData(StoredData):
    """What an automatic setting became."""

    value: Any
    reason: Text


KINDS: dict[str, Any] = {
    "device": Annotated[str, Field(pattern=r"^(cpu|mps|cuda(:\d{1,4})?)$")],
    "precision": Literal["float32", "bfloat16", "float16", "pure_bfloat16", "pure_float16"],
    "channels_last": bool, "compile": bool, "graph": bool, "loader": Literal["resident", "streaming"],
    "workers": Annotated[int, Field(ge=0, le=4096)], "threads": Annotated[int, Field(ge=1, le=65536)],
    "devices": Annotated[int, Field(ge=1, le=65536)], "steps": Annotated[int, Field(ge=1, le=10**15)],
}  # fmt: skip
"""What decisions may be, by name."""
NEEDED = ("device", "precision", "channels_last", "compile", "threads", "loader", "workers")
"""Those that no run lacks."""


@cache
def _kind(name: str) -> type[BaseModel]:
    kind: type[BaseModel] = type("Value", (StoredData,), {"__annotations__": {name: KINDS[name]}})
    return kind


def _decided(decisions: dict[str, DecisionData]) -> dict[str, DecisionData]:
    for name, decision in decisions.items():
        if name in KINDS:
            try:
                _kind(name).model_validate({name: decision.value})
            except ValidationError as error:
                raise ValueError(f"{name}: {_lower(error.errors()[0]['msg'])}") from None
    return decisions


def _require_needed(decisions: Mapping[str, Any]) -> None:
    if absent := [name for name in NEEDED if name not in decisions]:
        raise ValueError(f"decisions must tell {', '.join(absent)}")


class EnvironmentData(StoredData):
    """environment.json, as far as it is read again."""

    plugins: dict[str, str] = {}
    decisions: dict[str, DecisionData] = {}
    launch: Text = ""
    hyperparameters: dict[str, str | int | float | bool] = {}
    _decided = field_validator("decisions")(_decided)

    @model_validator(mode="after")
    def _whole(self) -> EnvironmentData:
        _require_needed(self.decisions if self.decisions else dict.fromkeys(NEEDED))
        return self


class ResultData(StoredData):
    """result.json, as far as it is read again."""

    state: Text | None = None
    why: Text | None = None
    seconds: Seconds = 0.0
    time: dict[str, Seconds] = {}


class TargetData(StoredData):
    """A TargetSpec."""

    kind: Literal["classes", "numbers", "labels", "nothing"]
    names: list[Annotated[str, Field(max_length=1000)]]
    mean: list[Annotated[float, Field(allow_inf_nan=False)]] = []
    std: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = []

    @model_validator(mode="after")
    def _whole(self) -> TargetData:
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"{self.kind} must differ")
        if self.kind == "classes" and len(self.names) < 2:
            raise ValueError("there must be two classes at least")
        if any(len(numbers) not in (0, len(self.names)) for numbers in (self.mean, self.std)):
            raise ValueError("mean and std must be as many as the names")
        return self


def _kind_of_preprocessing(values: Any) -> str:
    return "rows" if isinstance(values, dict) and "encoding" in values else "images"


class AboutData(StoredData):
    """What a checkpoint says of its training."""

    experiment: Annotated[str, Field(max_length=10**7)]
    target: TargetData
    preprocessing: Annotated[
        Annotated[ImagePreprocessingData, Tag("images")] | Annotated[RowPreprocessingData, Tag("rows")],
        Discriminator(_kind_of_preprocessing),
    ]
    decisions: dict[str, DecisionData]
    fingerprint: Text
    has_test: bool
    plugins: dict[str, str] = {}
    _decided = field_validator("decisions")(_decided)

    @model_validator(mode="after")
    def _whole(self) -> AboutData:
        _require_needed(self.decisions)
        return self


class MetricsData(StoredData):
    """The sums of an epoch that has begun, those of its task among them."""

    losses: Tensor
    examples: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _alike(self) -> MetricsData:
        sums = {"losses": self.losses, **(self.model_extra or {})}
        for name, values in sums.items():
            rows = isinstance(values, Tensor) and values.ndim in ((1,) if name == "losses" else (1, 2))
            if not rows or len(values) != len(self.losses):
                raise ValueError(f"{' and '.join(sums)} must be as many numbers; {name} are not")
        return self


class OptimizerData(StoredData):
    """What torch's optimizers save."""

    state: dict[int, dict[str, Any]]
    param_groups: list[dict[str, Any]]


class CheckpointData(StoredData):
    """A checkpoint. What has no field here is the state of a part that this training has beside the others."""

    __pydantic_extra__: dict[str, dict[str, Any] | None]
    format: int = 1
    about: AboutData
    step: Annotated[int, Field(ge=0, le=10**15)]
    history: list[dict[Annotated[str, Field(max_length=200)], float]]
    model: dict[str, Tensor]
    average: dict[str, Tensor] | None
    optimizer: OptimizerData
    lookahead: dict[str, Tensor] | None
    scaler: dict[str, Annotated[float, Field(allow_inf_nan=False)]] | None
    metrics: MetricsData
    epoch_seconds: Annotated[list[Seconds], Field(min_length=2, max_length=2)]

    @model_validator(mode="after")
    def _whole(self) -> CheckpointData:
        steps = [0, *(_counted(row, "step") for row in self.history), self.step]
        if any(later < earlier for earlier, later in pairwise(steps)):
            raise ValueError("history: its steps must ascend, up to that of the checkpoint")
        trained = {name for row in self.history for name in _names(row, "train")}
        for number, row in enumerate(self.history):
            _counted(row, "epoch")
            absent = [name for name in ROW if name not in row]
            if (found := _names(row, "validation")) and (missing := sorted(_names(row, "train") - found)):
                absent += [f"validation/{name}" for name in missing]
            absent += [f"train/{name}" for name in sorted(trained - _names(row, "train"))]
            if absent:
                raise ValueError(f"history.{number}: it must tell {', '.join(absent)}")
        return self


ROW = (
    "train/loss", "lr", "seconds/data", "seconds/compute", "seconds/evaluate", "seconds/checkpoint",
)  # fmt: skip
"""What every epoch of a history tells."""


WATCHED = "watched"
"""What `training.watch` remembers: no training depends on it, and one may go on with it or without."""
OF_EVERY_TRAINING = {"format", "about", "step", "history", "model", "optimizer", "metrics", "epoch_seconds", WATCHED}
"""What each checkpoint has, or may have; everything else is the state of a part that some trainings have, by its
name."""
ALWAYS_NAMED = ("average", "lookahead", "scaler")
"""The parts whose absence a checkpoint tells, by None."""
CHECKED_ALREADY = {"format", "about", "step", "history", "epoch_seconds", "scaler"}


def require_checkpoint(state: dict[str, Any]) -> None:
    """Raise StoredError when the state of a checkpoint is not one."""
    _validate(CheckpointData, state)
    for name in (name for name in state if name not in CHECKED_ALREADY):
        for where, value in _leaves(state[name], name):
            wrong = value.is_floating_point() and not bool(value.isfinite().all()) if isinstance(value, Tensor) else (
                isinstance(value, float) and math.isnan(value)
            )  # fmt: skip
            if wrong:
                raise StoredError(f"{named(where)}: it is infinite or not a number")


def require_environment(content: Any) -> None:
    """Raise StoredError when the content of environment.json is not what is written there."""
    _validate(EnvironmentData, content)


def is_result(content: Any) -> bool:
    """Whether the content of result.json is what is written there."""
    try:
        _validate(ResultData, content)
    except StoredError:
        return False
    return True


def require_plain(state: Any) -> None:
    """Raise StoredError when nested values hold anything but plain ones and whole, dense tensors."""
    for where, value in _leaves(state, ""):
        if type(value) not in PLAIN:
            raise StoredError(f"{named(where)}: it is a {type(value).__name__}, not a plain value")
        if isinstance(value, Tensor):
            dense = value.layout is torch.strided and not value.is_quantized and value.device.type == "cpu"
            if not dense or value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise StoredError(f"{named(where)}: the tensor is not dense, or is larger than its values")


def _names(row: dict[str, float], split: str) -> set[str]:
    """The metrics of a split in a row."""
    return {tag.removeprefix(f"{split}/") for tag in row if tag.startswith(f"{split}/")}


def _counted(row: dict[str, float], key: str) -> int:
    value = row.get(key, math.nan)
    if not (math.isfinite(value) and value >= 1 and value == int(value)):
        raise ValueError(f"history: `{key}` must be a whole number above 0")
    return int(value)


def _validate(model: type[BaseModel], content: Any) -> None:
    try:
        model.model_validate(content)
    except ValidationError as error:
        found = [
            f"{named('.'.join(map(str, each['loc'])))}: {_lower(each['msg'])}"
            for each in error.errors(include_input=False, include_url=False)[:SHOWN]
        ]
        raise StoredError("; ".join(found)) from None


def _leaves(values: Any, name: str) -> Iterator[tuple[str, Any]]:
    """What nested dicts and lists hold, with its name; each of them once, however deep and often it stands there."""
    waiting, seen = [(name, values)], set[int]()
    while waiting:
        where, value = waiting.pop()
        if type(value) in (dict, OrderedDict, list, tuple):
            if id(value) in seen:
                continue
            seen.add(id(value))
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                if type(key) not in (str, int):
                    raise StoredError(f"{named(where)}: it has a key that is neither text nor a number")
                waiting.append((f"{where[:1000]}.{key}" if where else str(key), inner))
        else:
            yield where, value


def named(where: str) -> str:
    """A field in a message, of bounded length."""
    shown = printable(where if len(where) <= LONGEST else where[: LONGEST - 3] + "...")
    return f"`{shown}`" if shown else "it"


def _lower(message: str) -> str:
    text = message.removeprefix("Value error, ")
    return printable(text[:1].lower() + text[1:300])
