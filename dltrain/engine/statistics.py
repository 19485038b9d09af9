"""Whether the norms of a network get enough to measure from the batches that it is trained on. Imports torch."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.instancenorm import _InstanceNorm

from dltrain.data.types import ImageShape, InputSpec
from dltrain.experiment.experiment import Experiment
from dltrain.layers.impl.statistics import single_values


def require_statistics(experiment: Experiment, model: nn.Module, shape: InputSpec, devices: int = 1) -> None:
    """Raise ConfigError where norms would measure single values: a part of a batch is one image, of one pixel there, or
    they look at one channel of such an image. shape: of the smallest images that the network is trained on."""
    training = experiment.training
    images = training.micro_batch // devices
    if not (found := single_values(model, shape, images, devices)):
        return
    name, layer = next(iter(found.items()))
    such = f"`{name}` ({type(layer).__name__})" + (f" and {len(found) - 1} more" if len(found) > 1 else "")
    if isinstance(layer, nn.GroupNorm | _InstanceNorm):
        message = (
            f"{such} would measure one value: images of {shape} end there in one pixel, and it takes channels alone"
        )
        raise experiment.error("model", message, "use larger images (`data.size`), fewer groups, or another norm")
    alone = "an image at a time, of one pixel there" if isinstance(shape, ImageShape) else f"one {shape.one} at a time"
    message = f"{such} would measure one value per channel: it sees {alone}"
    cut = [
        f" / {key} {count}" for key, count in (("accumulate", training.accumulate), ("devices", devices)) if count > 1
    ]
    key = "training.accumulate" if training.accumulate > 1 else "training.batch_size"
    whole = [f"batch_size {training.batch}{''.join(cut)} is 1"] if cut else []
    raise experiment.error(key, message, *whole, f"take more {shape.one}s at a time, or a norm that needs no batch")
