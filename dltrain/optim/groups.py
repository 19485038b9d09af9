"""Which parameters decay: a network and the optimizer's section flow in, torch parameter groups out.

Imports torch: import it where a training is built.
"""

from __future__ import annotations

import fnmatch
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from dltrain.config import ConfigError, Diagnostic, suggest
from dltrain.optim.base import EXEMPTIONS, Optimizer

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_SIZES = ("num_features", "num_channels", "normalized_shape")


def parameter_groups(model: nn.Module, optimizer: Optimizer) -> list[dict[str, Any]]:
    """The trainable parameters of `model` as one or two groups: with weight decay, and without.

    Within a group they keep the model's order; a shared parameter counts once, with the layer that has it
    first; frozen ones are left out. Raises ConfigError when a pattern of `no_decay` matches no parameter, or
    when nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    patterns = [word for word in optimizer.no_decay if word not in EXEMPTIONS]
    void = [pattern for pattern in patterns if not any(fnmatch.fnmatchcase(name, pattern) for name in names)]
    if void:
        raise ConfigError(_no_match(pattern, names) for pattern in void)
    owners = {id(p): module for module in reversed(list(model.modules())) for p in module.parameters(recurse=False)}
    decay: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            spared = optimizer.weight_decay > 0 and _is_exempt(name, parameter, owners[id(parameter)], optimizer)
            (exempt if spared else decay).append(parameter)
    if not decay and not exempt:
        raise ConfigError([Diagnostic("the model has nothing to train: all its parameters are frozen or it has none")])
    groups = [(decay, optimizer.weight_decay), (exempt, 0.0)]
    return [{"params": params, "weight_decay": rate} for params, rate in groups if params]


def _is_exempt(name: str, parameter: nn.Parameter, owner: nn.Module, optimizer: Optimizer) -> bool:
    kinds = {
        "bias": name.rpartition(".")[2] == "bias" or name.endswith("_bias"),
        "norm": is_norm(owner, parameter),
        "activation": is_activation(owner),
    }
    return any(kinds[w] if w in kinds else fnmatch.fnmatchcase(name, w) for w in optimizer.no_decay)


def is_norm(module: nn.Module, parameter: nn.Parameter) -> bool:
    """Whether a parameter belongs to a normalisation: by the class, the file that the class is from (torch,
    timm and dltrain keep norms in files named so), or a vector in a module that states what it normalises."""
    if isinstance(module, _NORMS) or "norm" in type(module).__module__.rpartition(".")[2]:
        return True
    return parameter.ndim == 1 and any(hasattr(module, size) for size in _SIZES)


def is_activation(module: nn.Module) -> bool:
    """Whether a module is an activation, as PReLU is, by the file that its class is from."""
    file = type(module).__module__.rpartition(".")[2]
    return "activation" in file and not isinstance(module, nn.MultiheadAttention)


def _no_match(pattern: str, names: list[str]) -> Diagnostic:
    near = suggest(pattern, [*EXEMPTIONS, *names])
    notes = [f"did you mean `{near}`?"] if near else []
    notes.append(f"`no_decay` takes {', '.join(f'`{w}`' for w in EXEMPTIONS)} and patterns of whole parameter names")
    notes.append(f"the model's parameters: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}")
    return Diagnostic(f"`{pattern}` in `optimizer.no_decay` matches no parameter of the model", notes=notes)
