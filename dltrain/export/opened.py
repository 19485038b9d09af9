"""An exported file with what its metadata tell: the task that reads its outputs, what it takes. Imports torch.

`eval` and `predict` ask it as they ask a checkpoint: the numbers come from onnxruntime, their meaning from the task.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dltrain.data.evaluation import Evaluation
from dltrain.data.tables.encoding import Encoding
from dltrain.data.targets import TargetSpec, target_from
from dltrain.data.types import Canvas
from dltrain.experiment.experiment import Experiment
from dltrain.export.about import About, ForeignError, Inputs
from dltrain.export.graph import INPUTS, OUTPUTS
from dltrain.export.raw import Raw
from dltrain.export.session import Session
from dltrain.runs.calibrations import Calibration, calibration_of
from dltrain.tasks.impl.base import BuiltTask


@dataclass(frozen=True)
class Opened:
    """A file, and what its answers mean."""

    session: Session
    experiment: Experiment
    target: TargetSpec
    task: BuiltTask
    calibration: Calibration | None = None
    """The temperature that the file divides outputs by, if any."""

    @property
    def about(self) -> About:
        """What the file says of itself."""
        return self.session.about

    @property
    def layout(self) -> Canvas | Encoding:
        """How examples are read: images in their own size, on a canvas that the graph knows; or columns."""
        return layout_of(self.about.inputs)

    def outputs(self, raw: Raw) -> tuple[Tensor, Tensor]:
        """What the network puts out for raw examples (N, ...), and its inputs where the task learns those."""
        found = self.session.run(raw, [OUTPUTS, INPUTS] if self.task.learns_inputs else [OUTPUTS])
        outputs = torch.from_numpy(found[OUTPUTS])
        return outputs, torch.from_numpy(found[INPUTS]) if INPUTS in found else outputs


def open_file(path: str | Path) -> Opened:
    """The file at `path`. Raises ForeignError for one that `dltrain export` did not write, RequestError without
    onnxruntime, ConfigError for an experiment that this version does not read."""
    session = Session.open(path, torch.get_num_threads())
    about, cpu = session.about, torch.device("cpu")
    experiment = Experiment.parse(about.experiment, str(path))
    target = target_from(about.target)
    several = not Evaluation.model_validate({"views": about.views}).is_plain
    task = experiment.resolved_task.build(experiment.loss, target, cpu, combined=several)
    calibration = None if about.calibration is None else calibration_of(about.calibration, str(path))
    try:
        if calibration is not None:
            task.temper(calibration.temperature)
        if about.state:
            kept: dict[str, Any] = task.state_dict()
            task.load_state_dict({name: torch.tensor(about.state[name], dtype=kept[name].dtype) for name in kept})
        if {OUTPUTS, *([INPUTS] if task.learns_inputs else [])} - {*about.outputs}:
            raise ValueError
    except (KeyError, ValueError, RuntimeError):
        raise ForeignError(f"{path} does not hold what its task `{about.task}` answers by") from None
    return Opened(session, experiment, target, task, calibration)


def layout_of(inputs: Inputs) -> Canvas | Encoding:
    """See `Opened.layout`. Without whitening, which the graph does."""
    if inputs.kind == "rows":
        return Encoding.from_dict({"features": inputs.features, "whitening": None})
    return Canvas(inputs.height, inputs.width, "crop", white=inputs.white, max_pixels=inputs.max_pixels)
