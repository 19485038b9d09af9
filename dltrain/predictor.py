"""A trained network with everything that it needs to read an image, from a checkpoint alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.builder import build_network
from dltrain.data.augmentation_base import AugmentationContext
from dltrain.data.canvas import Canvas
from dltrain.data.pipeline import Pipeline, build_pipeline
from dltrain.data.views import Views, views_canvas, views_of
from dltrain.decisions import pick_device
from dltrain.experiment import Experiment
from dltrain.preprocessing import Preprocessing


@dataclass
class Predictor:
    """A trained network with everything that it needs to read an image."""

    model: nn.Module
    pipeline: Pipeline
    preprocessing: Preprocessing
    classes: list[str]
    experiment: Experiment
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]

    views: Views = "center_crop"
    """What is seen of each image."""

    @property
    def canvas(self) -> Canvas:
        """Where images lie that are given to it."""
        return views_canvas(self.preprocessing.evaluation, self.views)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """images: (B, C, H, W) uint8 on `canvas`. Returns (B, K) on the device; of several views, the logarithm of
        the mean of their probabilities."""
        shape = self.preprocessing.shape
        seen = views_of(images.to(self.device), shape.height, shape.width, self.views)
        outputs = [self._answer(view) for view in seen]
        return outputs[0] if len(outputs) == 1 else log_mean_probability(outputs)

    def _answer(self, images: Tensor) -> Tensor:
        inputs = self.pipeline.evaluate(images)
        with self.autocast():
            logits: Tensor = self.model(inputs)
        return logits

    def probabilities(self, images: Tensor) -> Tensor:
        """images: (B, C, H, W) uint8 on `canvas`. Returns (B, K) float32 on the CPU."""
        return self.logits(images).float().softmax(1).cpu()


def log_mean_probability(logits: Sequence[Tensor]) -> Tensor:
    """log mean_m softmax(o_m) of several (B, K), on the device of the first; float32."""
    together = torch.stack([o.to(logits[0].device).float().log_softmax(1) for o in logits])
    return together.logsumexp(0) - math.log(len(logits))


def restore_predictor(state: dict[str, Any], device: str = "auto") -> Predictor:
    """The network of a checkpoint, with its averaged weights when it has any, ready to evaluate."""
    about = state["about"]
    target = pick_device(device)
    experiment = Experiment.parse(about["experiment"], "checkpoint")
    preprocessing = Preprocessing.from_dict(about["preprocessing"])
    model, _ = build_network(experiment, preprocessing.shape, len(about["classes"]), fresh=False)
    model.load_state_dict(state["model"] if state["average"] is None else state["average"])
    model.to(target).eval()
    decided = {name: decision["value"] for name, decision in about["decisions"].items()}
    dtype = torch.float32
    if channels_last := bool(decided["channels_last"]):
        model.to(memory_format=torch.channels_last)
    if target.type == torch.device(decided["device"]).type:  # then the numbers are those of training
        dtype = getattr(torch, decided["precision"])
        torch.backends.cudnn.allow_tf32 = not experiment.training.deterministic
    context = AugmentationContext(
        shape=preprocessing.shape, classes=len(about["classes"]), seed=experiment.seed,
        mean=torch.tensor(preprocessing.scaling.mean), std=torch.tensor(preprocessing.scaling.std),
    )  # fmt: skip
    pipeline = build_pipeline([], context, preprocessing.scaling.on(target, channels_last=channels_last))
    autocast = partial(torch.autocast, target.type, dtype=dtype, enabled=dtype != torch.float32)
    return Predictor(model, pipeline, preprocessing, about["classes"], experiment, target, autocast)
