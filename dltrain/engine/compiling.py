"""The network as the trainer calls it: as it is, compiled, or compiled and replayed as a CUDA graph. Imports torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from dltrain.engine.decisions import Decisions


class Replayed:
    """A compiled network whose kernels are recorded once for each shape of images and then launched as one.

    The next call overwrites what a call has put out, so the caller gets a copy.
    """

    def __init__(self, model: nn.Module) -> None:
        self.compiled = torch.compile(model, dynamic=False, mode="reduce-overhead")

    def __call__(self, images: Tensor) -> Any:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return tree_map_only(Tensor, Tensor.clone, self.compiled(images))


def callable_of(model: nn.Module, decisions: Decisions) -> Any:
    """What maps images (B, C, H, W) to the outputs of `model`, as it was decided."""
    if not decisions["compile"].value:
        return model
    if "graph" in decisions and decisions["graph"].value:
        return Replayed(model)
    return torch.compile(model, dynamic=False)
