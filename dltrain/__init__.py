"""dltrain: one YAML file in, a trained and trusted model out.

    from dltrain import Experiment, Run, Trainer, build, load

The names are loaded when they are first used, so that importing the package is instant.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dltrain.commands.loaded import Predictions, TrainedModel, load
    from dltrain.config import ConfigError
    from dltrain.engine.builder import build
    from dltrain.engine.trainer import Trainer
    from dltrain.experiment.experiment import Experiment
    from dltrain.runs.reports import EpochReport, Progress
    from dltrain.runs.run import Run

_HOMES = {
    "ConfigError": "dltrain.config",
    "EpochReport": "dltrain.runs.reports",
    "Experiment": "dltrain.experiment.experiment",
    "Predictions": "dltrain.commands.loaded",
    "Progress": "dltrain.runs.reports",
    "Run": "dltrain.runs.run",
    "TrainedModel": "dltrain.commands.loaded",
    "Trainer": "dltrain.engine.trainer",
    "build": "dltrain.engine.builder",
    "load": "dltrain.commands.loaded",
}

__all__ = [
    "ConfigError", "EpochReport", "Experiment", "Predictions", "Progress", "Run", "TrainedModel", "Trainer", "build",
    "load",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dltrain' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
