"""What a layer is: a norm, an activation, or neither. Weight decay, frozen groups and exchange go by it.

Our own modules, and those of plug-ins, declare it: `role = "norm"` in the class. For the libraries there is a table.
Imports no torch.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

Role = Literal["norm", "activation"]

LIBRARY_ROLES: dict[str, Role] = {
    "torch.nn.modules.activation": "activation",
    "torch.nn.modules.batchnorm": "norm",
    "torch.nn.modules.instancenorm": "norm",
    "torch.nn.modules.normalization": "norm",
    "timm.layers.activations": "activation",
    "timm.layers.evo_norm": "norm",
    "timm.layers.filter_response_norm": "norm",
    "timm.layers.norm": "norm",
    "timm.layers.norm_act": "norm",
    "timm.layers.split_batchnorm": "norm",
}
"""The files in which libraries keep their norms and activations."""
NEITHER = {"Softmax", "Softmax2d", "LogSoftmax", "Softmin", "MultiheadAttention"}
"""What torch keeps among the activations and is none."""


def role_of(module: Any) -> Role | None:
    """What a module declares to be, or what the library that it is from makes of it."""
    kind = type(module)
    declared: Role | None = getattr(kind, "role", None)
    if declared in get_args(Role):
        return declared
    return LIBRARY_ROLES.get(kind.__module__) if kind.__name__ not in NEITHER else None
