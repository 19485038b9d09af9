"""Weights from a file, by name: of a run of ours, a `.safetensors` file, or another library's state dict.

Files are opened safely: no code in them is run. Imports torch: import it where a training is built.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from dltrain.config.reader import read_text
from dltrain.errors import RunError
from dltrain.runs.checkpoints import CheckpointError
from dltrain.runs.run import Run

NESTED = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "params")
"""Keys under which libraries keep the weights in a file that holds more."""
WRAPPERS = ("module.", "_orig_mod.")
"""What wrapping a network (in DataParallel, by torch.compile) puts before every name."""


@dataclass(frozen=True)
class Weights:
    """The tensors of a file, by name. classes: those that its rows stand for; model: what it was trained with; where
    the file says so."""

    file: Path
    tensors: dict[str, Tensor]
    classes: Sequence[str] | None = None
    model: str | None = None

    def part(self, name: str) -> Weights:
        """The tensors of one part, `name` and the dot left out. Raises RunError when there is none."""
        prefix = f"{name}."
        found = {key.removeprefix(prefix): tensor for key, tensor in self.tensors.items() if key.startswith(prefix)}
        if not found:
            parts = ", ".join(sorted({key.partition(".")[0] for key in self.tensors})[:20])
            raise RunError(f"{self.file} has no part `{name}`; its parts: {parts}")
        return replace(self, tensors=found)


def read_weights(path: str) -> Weights:
    """The weights of a run (its best checkpoint, averaged where there is an average), a checkpoint, a `.safetensors`
    file or a state dict. Raises RunError when there are none, or the file cannot be opened safely."""
    place = Path(path)
    if place.is_file() and not _is_ours(place):
        return Weights(place, _foreign(place))
    run, file = Run.open(path)
    file, state = run.checkpoint_at(file or (run.best if run.best.exists() else run.last))
    tensors: dict[str, Tensor] = state["model"]
    if state["average"] is not None:
        tensors = {**tensors, **state["average"]}
    return Weights(file, tensors, state["about"]["target"]["names"], _model_of(state["about"]["experiment"]))


def _model_of(experiment: str) -> str | None:
    """The name of the model in an experiment's text, whether or not its parts are known here."""
    model = read_text(experiment, "checkpoint").get(("model",))
    name = model.get("name") if isinstance(model, dict) else model
    return name if isinstance(name, str) else None


def _is_ours(file: Path) -> bool:
    """Whether dltrain wrote the file, sound or not; what carries no digest of ours but lies in a run is ours too."""
    from dltrain.runs import checkpoints

    return file.suffix == ".pt" and (
        checkpoints.carries_digest(file) or (file.parent.parent / "experiment.yaml").exists()
    )


def _foreign(file: Path) -> dict[str, Tensor]:
    try:
        content = _opened(file)
    except OSError as error:
        raise RunError(f"{file} cannot be read: {error.strerror or error}") from None
    except CheckpointError as error:
        raise RunError(str(error)) from None
    except UnpicklingError:  # torch's own text says how to run the code in it all the same
        reason = "it holds more than tensors and plain values, or is of another kind"
        raise RunError(f"{file} is no state dict that can be opened safely: {reason}") from None
    except Exception as error:  # the readers of damaged files raise many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise RunError(f"{file} is no state dict that can be opened safely: {reason}") from None
    if isinstance(content, dict) and {"about", "history", "model"} <= content.keys():
        raise RunError(f"{file} was cut short: it is a checkpoint of dltrain without its digest")
    tensors = _tensors(content)
    if not tensors:
        raise RunError(f"{file} holds no weights by name")
    for wrapper in WRAPPERS:
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return tensors


def _opened(file: Path) -> Any:
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pickles that torch did not write, it asks for an issue to be filed
        return torch.load(file, map_location="cpu", weights_only=True)


def _tensors(content: Any) -> dict[str, Tensor]:
    """The tensors by name in what a file holds, within one of the usual keys where it holds more."""
    if not isinstance(content, dict):
        return {}
    for key in NESTED:
        if isinstance(content.get(key), dict):
            return _tensors(content[key])
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
