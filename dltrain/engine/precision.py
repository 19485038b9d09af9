"""Training whose weights are themselves of 16 bits: `training.precision: pure_bfloat16` or `pure_float16`.

Imports torch: import it where a training is built.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from dltrain.engine.after_step import Stateful, Stateless
from dltrain.engine.decisions import PURE, dtype_of
from dltrain.engine.shortcuts import own_step
from dltrain.experiment.experiment import Experiment

SMALL = 4
"""Side of the tensors that an optimizer is tried on."""


def halve(network: nn.Module, dtype: torch.dtype) -> None:
    """Keep the weights of convolutions and linear layers, which autocast computes in `dtype`, in `dtype` too.

    Those of norms and activations stay as they are, and so do statistics. Parameters remain the same objects.
    """
    for module in network.modules():
        if isinstance(module, (_ConvNd, nn.Linear)):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)


def halve_for(experiment: Experiment, network: nn.Module, groups: list[dict[str, Any]], precision: str) -> None:
    """Halve the weights of `network` where the decided precision is a pure one. groups: the optimizer's, of these
    weights; some optimizers make their state when they are made, so that it is made afterwards.

    Raises ConfigError as `require_half` does.
    """
    if precision.startswith(PURE):
        halve(network, dtype_of(precision))
        require_half(experiment, groups, dtype_of(precision))


def require_half(experiment: Experiment, groups: list[dict[str, Any]], dtype: torch.dtype) -> None:
    """Raise ConfigError for an optimizer that cannot update weights in `dtype`, found by a step on small tensors."""
    small: list[dict[str, Any]] = []
    for group in groups:
        shapes = {(tuple(min(side, SMALL) for side in p.shape), p.dtype) for p in group["params"]}
        parameters = [nn.Parameter(torch.ones(shape, dtype=own)) for shape, own in sorted(shapes, key=str)]
        for parameter in parameters:
            gradient = torch.linspace(-0.0117, 0.01, parameter.numel())  # nowhere 0: adafactor divides by its mean
            parameter.grad = gradient.reshape(parameter.shape).to(parameter.dtype)
        small.append({**group, "params": parameters})
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            optimizer = experiment.optimizer.build(small, torch.device("cpu"))
            for _ in range(2):
                optimizer.step()
        problem = _problem(optimizer)
    except Exception as error:  # libraries raise whatever they meet first
        problem = (str(error).splitlines() or [type(error).__name__])[0]
    if problem is not None:
        name = str(dtype).removeprefix("torch.")
        message = f"`{experiment.optimizer.name}` cannot train weights in {name}: {problem}"
        raise experiment.error("training.precision", message, f"`precision: {name}` keeps them in float32")


def _problem(optimizer: torch.optim.Optimizer) -> str | None:
    """What is wrong with the weights and the state after a step."""
    for parameter, state in ((key, value) for key, value in optimizer.state.items() if isinstance(key, Tensor)):
        if not bool(parameter.isfinite().all()):
            return "they become infinite"
        for key, value in state.items():  # torch casts all but `step` to the parameter's type when it loads a state
            inexact = isinstance(value, Tensor) and value.is_floating_point() and value.dtype != parameter.dtype
            if inexact and key != "step":
                return f"it keeps `{key}` in {str(value.dtype).removeprefix('torch.')}, which a resume would round"
    return None


class Scaler(Stateful, Protocol):
    """Keeps gradients within what a type of 16 bits can hold. torch's GradScaler is one."""

    def scale(self, outputs: Tensor) -> Tensor:
        """A loss, or its derivatives, times a factor."""

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the factor, once a step."""

    def step(self, optimizer: torch.optim.Optimizer) -> Any:
        """The optimizer's step, with gradients as they are without a factor."""

    def update(self) -> None:
        """The step is over."""


class Unscaled(Stateless):
    """The scaler of types whose range needs none."""

    def __init__(self) -> None:
        self._step: Callable[[], Any] | None = None

    def scale(self, outputs: Tensor) -> Tensor:
        """As it is."""
        return outputs

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Nothing to divide by."""

    def step(self, optimizer: torch.optim.Optimizer) -> Any:
        """The optimizer's step alone. It is the same optimizer in all steps."""
        if self._step is None:
            self._step = own_step(optimizer)
        return self._step()

    def update(self) -> None:
        """Nothing changes."""


def scaler_of(precision: str, batch_size: int, device: torch.device) -> Scaler:
    """The scaler that a decided precision needs."""
    if dtype_of(precision) != torch.float16:
        return Unscaled()
    return FixedScale(batch_size) if precision.startswith(PURE) else torch.amp.GradScaler(device.type)


class FixedScale(Stateless):
    """A gradient scaler with one factor: float16 loses gradients of a loss that is a mean over a batch, and keeps
    those of its sum (as in airbench). They are divided by the factor before anything looks at them.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self._unscaled = False

    def scale(self, outputs: Tensor) -> Tensor:
        """The loss times the factor."""
        return outputs * self.factor

    @torch.no_grad()
    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the factor, once a step."""
        if not self._unscaled:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            torch._foreach_div_(gradients, self.factor)
        self._unscaled = True

    def step(self, optimizer: torch.optim.Optimizer) -> Any:
        """The optimizer's step, with gradients as they are without a factor."""
        self.unscale_(optimizer)
        return optimizer.step()

    def update(self) -> None:
        """The step is over."""
        self._unscaled = False
