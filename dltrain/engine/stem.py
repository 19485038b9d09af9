"""What the `auto` of the network's stem became, and why: for the decisions that a run records."""

from __future__ import annotations

from typing import Any

from dltrain.data.base import SET
from dltrain.data.types import InputSpec, require_images
from dltrain.engine.decisions import Decision, Decisions, count_multiply_adds
from dltrain.models import Model
from dltrain.models.adaptable import SMALL
from dltrain.tasks.outputs import Output


def of_stem(model: Model, inputs: InputSpec, outputs: Output, multiply_adds: int) -> Decisions:
    """The stem of a network that has one to choose, and what it costs. multiply_adds: an image's, with this stem."""
    stem: Any = getattr(model, "stem", None)
    if "stem" not in type(model).model_fields:
        return {}
    shape = require_images(inputs, f"model `{model.name}`")
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


def _cost(model: Model, shape: InputSpec, outputs: Output) -> int:
    """Multiply-adds of an image, by shapes alone; 0 for a network that cannot be built so."""
    import torch

    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return count_multiply_adds(model.make(shape, outputs), shape)
    except Exception:  # the network that is trained was built, which is what counts
        return 0
