"""Layers that torch lacks, as modules. Imported only when a section builds."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn


class CountsSteps(nn.Module):
    """A layer that trains differently as the training goes on: the buffer `counter` holds how many steps are done.

    Who trains calls `step_done` after each optimizer step. A forward never counts: parts of a batch, second passes of a
    step and a layer that is called twice would each count for a step.
    """

    counter: ClassVar[str] = "steps"
    anew: ClassVar[bool] = False
    """Whether a training that starts from another one's weights counts from 0."""

    def step_done(self) -> None:
        """One more step is done; a layer that is frozen, and so not in training, does not count it."""
        if self.training and hasattr(self, self.counter):
            getattr(self, self.counter).add_(1)


def step_counters(network: nn.Module) -> dict[str, Tensor]:
    """The counters of the layers that count steps, int64 scalars, by their names in the state dict."""
    return {
        f"{name}.{layer.counter}" if name else layer.counter: getattr(layer, layer.counter)
        for name, layer in network.named_modules()
        if isinstance(layer, CountsSteps) and hasattr(layer, layer.counter)
    }


class OverChannels(nn.Module):
    """A norm of the last dimension, applied to the channels of each pixel.

    images (B, C, H, W) -> (B, C, H, W), where `norm` maps (..., C) -> (..., C).
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.norm(images.movedim(1, -1))
        return out.movedim(-1, 1)


class OnVectors(nn.Module):
    """A layer for maps, applied to vectors as maps of one pixel: (B, C) -> (B, C)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, vectors: Tensor) -> Tensor:
        out: Tensor = self.inner(vectors[:, :, None, None])
        return out[:, :, 0, 0]


class Followed(nn.Module):
    """A module and what follows it: extra(inner(...))."""

    def __init__(self, inner: nn.Module, extra: nn.Module) -> None:
        super().__init__()
        self.inner, self.extra = inner, extra

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.extra(self.inner(*inputs, **options))


class Multiplied(nn.Module):
    """Its inputs times a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.factor


class Preceded(nn.Module):
    """A module and what comes before it: inner(extra(...))."""

    def __init__(self, extra: nn.Module, inner: nn.Module) -> None:
        super().__init__()
        self.extra, self.inner = extra, inner

    def forward(self, inputs: Tensor) -> Any:
        return self.inner(self.extra(inputs))
