"""A trained network with everything that it needs to read an image, from a checkpoint alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.data.evaluation import Evaluation, Views
from dltrain.data.loading.pipeline import Pipeline
from dltrain.data.loading.resources import keep_freed_memory
from dltrain.data.loading.views import central, views_layout
from dltrain.data.targets import TargetSpec
from dltrain.data.types import Preprocessing
from dltrain.engine.decisions import PURE, autocast_of, dtype_of, pick_device
from dltrain.engine.networks import build_network, place
from dltrain.engine.precision import halve
from dltrain.engine.resolve import resolve_checkpoint
from dltrain.engine.views import answer
from dltrain.errors import RunError
from dltrain.experiment.experiment import Experiment
from dltrain.runs.calibrations import Calibration
from dltrain.runs.restoring import require_like
from dltrain.runs.stored import StoredError
from dltrain.tasks.impl.base import BuiltTask
from dltrain.tasks.impl.meters import wide_type
from dltrain.tasks.impl.objectives import Objective, answer_of


@dataclass
class Predictor:
    """A trained network with everything that it needs to read an image."""

    model: nn.Module
    pipeline: Pipeline
    preprocessing: Preprocessing
    target: TargetSpec
    task: BuiltTask
    experiment: Experiment
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]
    evaluation: Evaluation
    """What is seen of each image."""
    calibration: Calibration | None = None
    """The temperature that outputs are divided by, if any: what is combined of several views, last."""
    untempered: BuiltTask | None = None
    """With a temperature, the task as it reads outputs before."""

    def look(self, views: Views | None, share: float | None) -> None:
        """See these views of each image from now on; None: those of the experiment. Raises RunError where
        the task cannot combine them, or not for a share of the images."""
        given = {key: value for key, value in (("views", views), ("share", share)) if value is not None}
        task, seen = self.experiment.resolved_task, self.experiment.evaluation.model_copy(update=given)
        if not task.combines_views and seen.views != "center_crop":
            raise RunError(f"task `{task.name}` makes no one answer of several views of an example")
        if not task.confident and not seen.is_plain and seen.share != 1:
            raise RunError(
                f"task `{task.name}` does not know which answers are the least sure: leave --views-share out"
            )
        self.evaluation = seen

    def calibrate(self, calibration: Calibration) -> str | None:
        """Divide outputs by a temperature from now on; no answer changes but for probabilities. Where that was fitted
        to other views of an image, nothing happens: returns why.

        Raises RunError where the task has no probabilities.
        """
        self.require_probabilities()
        seen = self.evaluation
        if (seen.views, seen.share) != (calibration.views, calibration.share):
            own = f"{calibration.views}, share {calibration.share:g}"
            return f"probabilities are not calibrated: the temperature is that of other views ({own})"
        self.untempered, self.calibration = self.task, calibration
        self.task = self.measuring_task(combined=False)
        self.task.temper(calibration.temperature)
        return None

    def require_probabilities(self) -> None:
        """Raise RunError for a task whose outputs no temperature calibrates."""
        if not self.task.calibrates:
            name = self.experiment.resolved_task.name
            raise RunError(f"task `{name}` gives no probabilities: there is nothing to calibrate")

    def tempered(self, outputs: Any) -> Any:
        """What is put out, (B, ...) or an `Objective`, with its answer divided by the temperature, in float64 where
        there is such: no two logits become equal."""
        if self.calibration is None:
            return outputs
        answered = answer_of(outputs)
        divided = answered.to(wide_type(answered.device)) / self.calibration.temperature
        return outputs.answering(divided) if isinstance(outputs, Objective) else divided

    @property
    def layout(self) -> Any:
        """That of examples that are given to it."""
        return views_layout(self.preprocessing.evaluation, self.evaluation.views)

    @torch.no_grad()
    def outputs(self, images: Tensor, valid: int | None = None) -> Any:
        """images: a batch in `layout`, of which the first `valid` count, or all. Returns what the network
        puts out (B, ...), on the device; of several views, what the task combines."""
        images, valid = images.to(self.device), len(images) if valid is None else valid
        task = self.untempered or self.task
        found = answer(task, self._outputs, images, self.preprocessing.shape, self.evaluation, valid)
        return self.tempered(found)

    def _outputs(self, images: Tensor) -> Any:
        inputs = self.pipeline.evaluate(images)
        with self.autocast():
            return self.model(inputs)

    def inputs(self, images: Tensor) -> Tensor:
        """What the network gets of a batch in `layout`, of images their central view, on the device."""
        return self.pipeline.evaluate(central(images.to(self.device), self.preprocessing.shape))

    def pixels(self, outputs: Tensor) -> Tensor:
        """What outputs look like, of a task that learns images: (B, C, H, W) uint8 on the CPU."""
        pixels = self.pipeline.scaling.invert(self.task.shown(outputs))
        return pixels.clamp(0, 255).round().byte().cpu()

    def measuring_task(self, *, combined: bool) -> BuiltTask:
        """The task as it measures a split. combined: whether it measures answers of several networks or views."""
        experiment = self.experiment
        task = experiment.resolved_task.build(experiment.loss, self.target, self.device, combined=combined)
        task.adopt([self.task])
        return task


def restore_predictor(state: dict[str, Any], device: str = "auto", file: Path | None = None) -> Predictor:
    """The network of a checkpoint, with its averaged weights when it has any, ready to evaluate.

    Raises RunError, which names the file, when its weights are not those of its network.
    """
    about, target, name = state["about"], pick_device(device), str(file or "checkpoint")
    resolved = resolve_checkpoint(about, name)
    experiment, preprocessing = resolved.experiment, resolved.preprocessing
    model = build_network(resolved, fresh=False).model
    kept = "model" if state["average"] is None else "average"
    try:
        require_like(state[kept], model.state_dict(), kept)
    except StoredError as error:
        raise RunError(f"{file or 'the checkpoint'} does not hold the weights of its network: {error}") from None
    model.load_state_dict(state[kept])
    decided = {name: decision["value"] for name, decision in about["decisions"].items()}
    place(model.eval(), target, channels_last=decided["channels_last"])
    if target.type == "cpu":
        keep_freed_memory()
    dtype = torch.float32
    if target.type == torch.device(decided["device"]).type:  # then the numbers are those of training
        dtype = dtype_of(decided["precision"])
        if decided["precision"].startswith(PURE) and state["average"] is None:
            halve(model, dtype)
        torch.backends.cudnn.allow_tf32 = not experiment.training.deterministic
    scaling = preprocessing.scaling.on(target, channels_last=decided["channels_last"])
    task = experiment.resolved_task.build(experiment.loss, resolved.target, target)
    if settled := state.get("task"):
        try:
            require_like(settled, task.state_dict(), "task")
        except StoredError as error:
            raise RunError(f"{file or 'the checkpoint'} does not hold what its task answers by: {error}") from None
        task.load_state_dict(settled)
    return Predictor(
        model, Pipeline((), (), (), scaling, experiment.seed), preprocessing, resolved.target,
        task, experiment, target,
        autocast_of(dtype, target), experiment.evaluation,
    )  # fmt: skip


def require_same_units(predictors: Sequence[Predictor]) -> None:
    """Raise RunError for networks that reconstruct differently scaled inputs, or some of them logits: there is no mean
    of what they put out."""

    def units(predictor: Predictor) -> tuple[object, ...]:
        preprocessing = predictor.preprocessing
        return preprocessing.shape, preprocessing.scaling, predictor.experiment.loss.of_logits

    first, *others = predictors
    if first.task.learns_inputs and any(units(other) != units(first) for other in others):
        raise RunError("the runs have different `data.scaling` or `loss`: their reconstructions have no mean")
