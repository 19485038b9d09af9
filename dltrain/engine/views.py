"""The answers of a network to images of which it sees several views. Imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from dltrain.data.evaluation import Evaluation
from dltrain.data.loading.views import SHIFT_WEIGHTS, centre, views_of
from dltrain.data.types import ImageShape, InputSpec
from dltrain.tasks.impl.base import BuiltTask
from dltrain.tasks.impl.meters import wide_type
from dltrain.tasks.impl.objectives import answer_of


def answer(
    task: BuiltTask, network: Callable[[Tensor], Any], images: Tensor, shape: InputSpec, evaluation: Evaluation,
    valid: int,
) -> Any:  # fmt: skip
    """What a network puts out, its answer (B, ...) or an `Objective`, for images (B, C, H, W) on `views_layout`, of
    which the first `valid` count.

    Of several views: what the task combines of its answers, for `share` of the images, those whose answer is the least
    sure; the others keep theirs. Both in float64 then, where there is such.
    """
    if not isinstance(shape, ImageShape):  # of rows there is one view
        return network(images)
    alone = network(centre(images, shape.height, shape.width))
    count = round(evaluation.share * valid)
    if evaluation.views == "center_crop" or count == 0:
        return alone
    alone = answer_of(alone)
    answers, rows = alone.to(wide_type(alone.device)), None
    if count < valid:
        confidence = task.confidence(answers)
        confidence[valid:] = math.inf
        rows = confidence.topk(count, largest=False).indices
        images, alone = images[rows], alone[rows]
    seen = views_of(images, shape.height, shape.width, evaluation.views)
    plain = 4 if evaluation.views in ("five_crop", "ten_crop") else 0
    outputs = [alone if index == plain else answer_of(network(view)) for index, view in enumerate(seen)]
    together = task.combine(outputs, SHIFT_WEIGHTS if evaluation.views == "flip_shift" else None)
    return together if rows is None else answers.index_copy(0, rows, together)
