"""The optimizers of torch, each in its fastest form for the device. Options bear torch's names."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator, model_validator

from dltrain.config import Fraction, NonNegative, Positive, Probability, reject
from dltrain.optim.base import Optimizer

if TYPE_CHECKING:
    import torch

FUSED_EVERYWHERE = ("cpu", "cuda", "mps", "xpu")


def kernels(device: torch.device, fused: Collection[str]) -> dict[str, bool]:
    """Which of torch's forms of an optimizer to use, as arguments for it: the only place that decides.

    Fused (one kernel for all tensors and operations) where torch >= 2.8 has it: `fused` names those devices.
    Else foreach (one kernel per operation for all tensors) on GPUs. Else a loop over the tensors, which on a
    CPU costs as much as foreach. Measured on 2 CPU cores, ResNet-18, a step of SGD with momentum: fused 3 ms,
    foreach 21 ms, loop 16 ms. The three round differently; the form follows from the optimizer and the
    kind of device alone, so a resumed run has the same.
    """
    if device.type in fused:
        return {"fused": True}
    return {"foreach": device.type in ("cuda", "xpu")}


def ready(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The same optimizer, made safe to load a state dict into.

    Fused kernels walk through memory and take for granted that a state lies there as its parameter does: a
    momentum saved with channels_last and loaded beside a contiguous weight would silently be mixed up (seen on
    torch 2.15). So loaded states are laid out like their parameters, and a state dict from another device does
    not bring its form along. On the same machine neither changes anything.
    """
    own: dict[str, Any] = {key: optimizer.defaults[key] for key in ("fused", "foreach") if key in optimizer.defaults}

    def settle(loaded: torch.optim.Optimizer) -> None:
        for group in loaded.param_groups:
            group.update(own)
        for parameter, state in loaded.state.items():
            for key, value in state.items() if isinstance(state, dict) else ():  # libraries keep numbers there too
                shape, stride = getattr(value, "shape", None), getattr(value, "stride", None)
                if stride is not None and shape == getattr(parameter, "shape", None) and stride() != parameter.stride():
                    state[key] = parameter.detach().clone().copy_(value)

    optimizer.register_load_state_dict_post_hook(settle)
    return optimizer


def form(optimizer: torch.optim.Optimizer) -> str:
    """Which form an optimizer runs in, in words: `fused`, `foreach` or `loop`."""
    group = optimizer.param_groups[0]
    return "fused" if group.get("fused") else "foreach" if group.get("foreach") else "loop"


def start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Let the momentum of a fused SGD start from zeros.

    The kernel takes uninitialised memory at its first step, and leaves it so when the gradient scaler skips that step
    (torch 2.15). Zeros give the same first step, as the fused form has no dampening. Other forms and optimizers make
    their state with numbers in it.
    """
    import torch

    if not isinstance(optimizer, torch.optim.SGD) or form(optimizer) != "fused":
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))


def set_momentum(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the momentum (Adam's beta1) of all groups of an optimizer that has one."""
    for group in optimizer.param_groups:
        if "betas" in group:
            group["betas"] = (value, *group["betas"][1:])
        elif "momentum" in group:
            group["momentum"] = value


def check_betas(betas: list[float], key: str = "betas") -> list[float]:
    """The two shares of Adam's running means; for the validator of a section."""
    if len(betas) != 2:
        raise reject(key, f"`{key}` are two numbers, of the gradient and of its square, not {len(betas)}")
    return betas


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum and Nesterov's look-ahead as options.

    The form of torch: v = momentum v + g; w -= lr v (Nesterov: w -= lr (g + momentum v)).
    """

    source = "https://proceedings.mlr.press/v28/sutskever13.html"
    name: Literal["sgd"] = "sgd"
    lr: Positive = 0.1
    """Peak learning rate; the schedule scales it."""
    momentum: Fraction = 0.0
    """Share of the last update that is kept; 0.9 is usual."""
    dampening: Probability = 0.0
    """The gradient enters the momentum times 1 - dampening."""
    nesterov: bool = False
    """Use the gradient at the look-ahead point; needs momentum."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> SGD:
        if self.nesterov and self.momentum == 0:
            raise reject("nesterov", "`nesterov` needs `momentum` > 0: there is nothing to look ahead with")
        if self.nesterov and self.dampening > 0:
            raise reject("dampening", "`dampening` must be 0 with `nesterov`")
        return self

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from torch.optim import SGD as TorchSGD

        optimizer = TorchSGD(
            groups, lr=self.lr, momentum=self.momentum, dampening=self.dampening, weight_decay=self.weight_decay,
            nesterov=self.nesterov, **kernels(device, () if self.dampening else FUSED_EVERYWHERE),
        )  # fmt: skip
        if self.momentum:
            start_momentum(optimizer)
        return ready(optimizer)

    def first_step(self, w: float, g: float) -> float:
        return w - self.lr * (g + self.weight_decay * w) * (1 + self.momentum * self.nesterov)


class AdamOptions(Optimizer):
    """The options that Adam and its variants share."""

    lr: Positive = 1e-3
    """Peak learning rate; about the size of each weight's change per step."""
    betas: list[Fraction] = [0.9, 0.999]
    """Share kept of the running mean of the gradient, and of its square: two numbers."""
    eps: Positive = 1e-8
    """Added to the root, against division by 0."""
    amsgrad: bool = False
    """Divide by the largest mean square so far (1904.09237)."""

    @field_validator("betas")
    @classmethod
    def _two(cls, betas: list[float]) -> list[float]:
        return check_betas(betas)

    def _arguments(self, device: torch.device) -> dict[str, Any]:
        return {
            "lr": self.lr, "betas": (self.betas[0], self.betas[1]), "eps": self.eps, "amsgrad": self.amsgrad,
            "weight_decay": self.weight_decay, **kernels(device, FUSED_EVERYWHERE),
        }  # fmt: skip


class Adam(AdamOptions):
    """Running means of the gradient and its square, corrected for their start at 0.

    w -= lr m / (sqrt(v) + eps). Weight decay is an L2 penalty that is scaled too; `adamw` decays apart.
    """

    source = "https://arxiv.org/abs/1412.6980"
    name: Literal["adam"] = "adam"

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from torch.optim import Adam as TorchAdam

        return ready(TorchAdam(groups, **self._arguments(device)))

    def first_step(self, w: float, g: float) -> float:
        g += self.weight_decay * w
        return w - self.lr * g / (abs(g) + self.eps)


class AdamW(AdamOptions):
    """Adam with weight decay apart from the gradient: w -= lr weight_decay w, then Adam's step."""

    source = "https://arxiv.org/abs/1711.05101"
    name: Literal["adamw"] = "adamw"
    weight_decay: NonNegative = 0.01
    """Share of the weight, times lr, that is taken off at each step."""

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from torch.optim import AdamW as TorchAdamW

        return ready(TorchAdamW(groups, **self._arguments(device)))

    def first_step(self, w: float, g: float) -> float:
        return w * (1 - self.lr * self.weight_decay) - self.lr * g / (abs(g) + self.eps)


class RMSprop(Optimizer):
    """The gradient divided by the root of a running mean of its square: w -= lr g / (sqrt(v) + eps)."""

    source = "https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf"
    name: Literal["rmsprop"] = "rmsprop"
    lr: Positive = 1e-2
    """Peak learning rate; the schedule scales it."""
    alpha: Fraction = 0.99
    """Share kept of the running mean of the square (0.9 in Hinton's lecture)."""
    momentum: Fraction = 0.0
    """Share of the last update that is kept."""
    eps: Positive = 1e-8
    """Added to the root (not under it, as TensorFlow does)."""
    centered: bool = False
    """Divide by the standard deviation instead: subtract the squared running mean."""

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from torch.optim import RMSprop as TorchRMSprop

        return ready(TorchRMSprop(
            groups, lr=self.lr, alpha=self.alpha, momentum=self.momentum, eps=self.eps, centered=self.centered,
            weight_decay=self.weight_decay, **kernels(device, ()),
        ))  # fmt: skip

    def first_step(self, w: float, g: float) -> float:
        g += self.weight_decay * w
        variance = (1 - self.alpha) * g * g * (self.alpha if self.centered else 1)
        return w - self.lr * g / (math.sqrt(variance) + self.eps)


class AdaGrad(Optimizer):
    """The gradient divided by the root of the sum of its squares so far: w -= lr g / (sqrt(v) + eps)."""

    source = "https://jmlr.org/papers/v12/duchi11a.html"
    name: Literal["adagrad"] = "adagrad"
    lr: Positive = 1e-2
    """Peak learning rate: the size of each weight's first change."""
    initial_accumulator_value: NonNegative = 0.0
    """What the sum of squares starts from."""
    eps: Positive = 1e-10
    """Added to the root, against division by 0."""

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from torch.optim import Adagrad

        return ready(Adagrad(
            groups, lr=self.lr, eps=self.eps, initial_accumulator_value=self.initial_accumulator_value,
            weight_decay=self.weight_decay, **kernels(device, ("cpu",)),
        ))  # fmt: skip

    def first_step(self, w: float, g: float) -> float:
        g += self.weight_decay * w
        return w - self.lr * g / (math.sqrt(self.initial_accumulator_value + g * g) + self.eps)
