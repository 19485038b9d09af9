"""`check --gradients`: the gradients of a backward pass beside central differences, in float64, on the first batch.

    backward pass: g       differences: (L(w + h e) - L(w - h e)) / (2 h), for some coordinates e of each tensor

The network is in training mode, and each evaluation of the loss draws the same noise and begins with the same buffers.
Imports torch: import it where gradients are checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dltrain.data.random import derive_seed
from dltrain.engine.builder import build
from dltrain.engine.trainer import Trainer
from dltrain.engine.updates import StepInput
from dltrain.experiment.experiment import Experiment
from dltrain.optim.impl.gradients import moved

STEPS = (1e-4, 1e-5, 1e-6)
"""h: the first one, and shorter ones where the difference is not the gradient, as a kink may lie within the first."""
RESOLUTION = 20 * torch.finfo(torch.float64).eps
"""Share of the loss below which two losses in float64 are the same."""


@dataclass(frozen=True)
class CheckedTensor:
    """What the gradient of one parameter tensor is worth."""

    name: str
    shape: tuple[int, ...]
    checked: int
    """Coordinates that were looked at."""
    kinks: int
    """Those of them, not counted in the error, that lie on a kink: the differences to both sides are apart, however
    short, and the gradient lies between them."""
    gradient: float
    """The largest absolute value of the gradient in these coordinates."""
    error: float
    """The largest distance between gradient and difference, over the larger of both; below what float64 resolves it
    counts for less."""


def check_gradients(experiment: Experiment, tolerance: float, coordinates: int = 20) -> Iterator[CheckedTensor]:
    """Check each parameter tensor that is trained, in the network's order.

    tolerance: the relative error that is allowed; it decides where shorter differences are tried. coordinates: of each
    tensor, at most: half of them where the gradient is largest, the others drawn from the experiment's seed. Raises
    ConfigError when the training cannot be built.
    """
    plain = {
        "training.precision": "float32", "training.compile": False, "gradient": "backpropagation",
        "training.channels_last": False,
    }  # fmt: skip
    trainer = build(experiment.override_all(plain), "cpu")
    try:
        yield from _Check(trainer, experiment.seed, tolerance).tensors(coordinates)
    finally:
        trainer.close()


class _Check:
    """The loss of the first batch in float64, as a function of the weights, and its gradients."""

    def __init__(self, trainer: Trainer, seed: int, tolerance: float) -> None:
        parts = trainer.parts
        self.seeds, self.seed, self.tolerance = parts.seeds, seed, tolerance
        self.model = parts.model.double().train()
        self.gradients = parts.gradients
        for module in vars(parts.task).values():  # losses with weights of their own
            if isinstance(module, nn.Module):
                module.double()
        batches = parts.train.batches(0)
        inputs, targets = parts.pipeline.train(next(batches), 0)
        batches.close()
        inputs, targets = inputs.double(), targets.double() if targets.is_floating_point() else targets
        targets = inputs if parts.task.learns_inputs else targets
        self.given = StepInput(inputs, targets, 0, False, trainer.metrics)
        self._buffers = [(buffer, buffer.detach().clone()) for buffer in self.model.buffers()]

    def _start(self) -> None:
        self.seeds.layers(0)
        for buffer, value in self._buffers:
            buffer.detach().copy_(value)

    def loss(self) -> float:
        """Of the batch, with the penalties, at the weights as they are."""
        self._start()
        with torch.no_grad():
            penalty = self.gradients.penalties.loss()
            loss = torch.cat(list(self.gradients.summands(self.given, measure=False))).mean()
        return float(loss if penalty is None else loss + penalty)

    def tensors(self, coordinates: int) -> Iterator[CheckedTensor]:
        """See check_gradients."""
        self._start()
        self.gradients.add_loss(self.given, measure=False)
        self.gradients.add_penalties()
        middle = self.loss()
        for name, weight in self.model.named_parameters():
            if weight.requires_grad:
                weight.data = weight.data.contiguous()
                yield self._checked(name, weight, middle, coordinates)

    def _checked(self, name: str, weight: nn.Parameter, middle: float, coordinates: int) -> CheckedTensor:
        gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
        chosen = self._chosen(name, gradient, coordinates)
        found = gradient.reshape(-1)[chosen].tolist()
        floor = self._resolution(middle, STEPS[0]) / self.tolerance
        largest = max(map(abs, found))
        kinks, errors, sizes = 0, [0.0], [floor, largest]
        for index, slope in zip(chosen, found, strict=True):
            difference, kink = self._difference(weight, index, slope, middle)
            kinks += kink
            if not kink:
                errors.append(abs(difference - slope))
                sizes.append(abs(difference))
        finite = all(map(math.isfinite, [*errors, *sizes, *found]))
        error = max(errors) / max(sizes) if finite else math.inf
        return CheckedTensor(name, tuple(weight.shape), len(chosen), kinks, largest, error)

    def _chosen(self, name: str, gradient: Tensor, count: int) -> list[int]:
        """Where the gradient is largest, for half of so many coordinates; the others are drawn."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, name, "coordinates"))
        drawn = torch.randperm(gradient.numel(), generator=generator).tolist()
        largest = gradient.abs().reshape(-1).topk(min(-(-count // 2), len(drawn))).indices.tolist()
        return list(dict.fromkeys([*largest, *drawn]))[:count]

    def _difference(self, weight: Tensor, index: int, slope: float, middle: float) -> tuple[float, bool]:
        """The central difference in a coordinate, the nearest to `slope` of those tried, and whether it is a kink."""
        tried: list[float] = []
        for step in STEPS:
            above, below = (moved(self.loss, weight, index, by) for by in (step, -step))
            tried.append((above - below) / (2 * step))
            allowed = self.tolerance * max(abs(slope), abs(tried[-1])) + self._resolution(middle, step)
            if abs(tried[-1] - slope) <= allowed:
                return tried[-1], False
            right, left = (above - middle) / step, (middle - below) / step
        apart = abs(right - left) > 4 * allowed
        between = min(left, right) - allowed <= slope <= max(left, right) + allowed
        return min(tried, key=lambda value: abs(value - slope)), apart and between

    def _resolution(self, loss: float, step: float) -> float:
        """What rounding may add to a difference."""
        return RESOLUTION * max(abs(loss), 1.0) / step
