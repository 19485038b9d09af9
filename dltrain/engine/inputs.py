"""What the `auto` of the data and of the network's stem became, and why: for the decisions that a run records."""

from __future__ import annotations

from typing import Any

from dltrain.data.datasets import Arrays, Dataset
from dltrain.data.preprocessing import Preprocessing
from dltrain.data.types import ImageShape
from dltrain.engine.decisions import Decision, Decisions, count_multiply_adds
from dltrain.models import Model
from dltrain.models.adaptable import SMALL
from dltrain.tasks.outputs import Output

SET = "set in the experiment"


def of_data(data: Dataset, preprocessing: Preprocessing, *, pretrained: bool) -> Decisions:
    """How images are scaled, resized and laid out. pretrained: whether the network begins with weights that say it."""
    found = {}
    if data.scaling != "auto":
        found["scaling"] = Decision(data.scaling, SET)
    elif pretrained:
        found["scaling"] = Decision("pretrained", "the mean and the deviation that the network's weights expect")
    else:
        found["scaling"] = Decision("standardize", "no pretrained weights expect another")
    why = SET if data.interpolation != "auto" else "as the pretrained weights expect" if pretrained else "the usual one"
    if preprocessing.evaluation.rule == "exact":
        why += "; the images keep their size"
    found["interpolation"] = Decision(preprocessing.evaluation.interpolation, why)
    if isinstance(data, Arrays):
        found["layout"] = _layout(data)
    return found


def _layout(data: Arrays) -> Decision:
    from dltrain.data.arrays import shape_of_images

    if data.layout != "auto":
        return Decision(data.layout, SET)
    shape = shape_of_images(data.path)
    if len(shape) == 3:
        return Decision("channels_first", f"images of shape {shape} have no dimension of channels")
    return Decision("channels_last" if shape[3] <= 4 else "channels_first", f"by the shape {shape} of images")


def of_stem(model: Model, shape: ImageShape, outputs: Output, multiply_adds: int) -> Decisions:
    """The stem of a network that has one to choose, and what it costs. multiply_adds: an image's, with this stem."""
    stem: Any = getattr(model, "stem", None)
    if "stem" not in type(model).model_fields:
        return {}
    if stem != "auto":
        return {"stem": Decision(stem, SET)}
    if getattr(model, "pretrained", False):
        return {"stem": Decision("large", "pretrained weights are those of the stem as published")}
    if max(shape.height, shape.width) > SMALL:
        return {"stem": Decision("large", f"images of {shape.height}x{shape.width} are larger than {SMALL} pixels")}
    published = _cost(model.model_copy(update={"stem": "large"}), shape, outputs)
    if published == multiply_adds:
        return {"stem": Decision("large", "the network's first convolution has no stride to lose")}
    why = f"images of {shape.height}x{shape.width} are not larger than {SMALL} pixels, and keep their size in it"
    if published:
        why += f"; it costs {multiply_adds / published:.3g} times the multiply-adds of `stem: large`"
    return {"stem": Decision("small", why)}


def _cost(model: Model, shape: ImageShape, outputs: Output) -> int:
    """Multiply-adds of an image, by shapes alone; 0 for a network that cannot be built so."""
    import torch

    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return count_multiply_adds(model.make(shape, outputs), shape)
    except Exception:  # the network that is trained was built, which is what counts
        return 0
