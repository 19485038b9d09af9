"""Which parameters are trained how: a network and the optimizer's section flow in, torch parameter groups out.

Imports torch: import it where a training is built.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from dltrain.config import ConfigError, Diagnostic, suggest
from dltrain.optim.base import EXEMPTIONS, Optimizer

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_SIZES = ("num_features", "num_channels", "normalized_shape")


def parameter_groups(model: nn.Module, optimizer: Optimizer) -> list[dict[str, Any]]:
    """The trainable parameters of `model` in groups that share their `weight_decay`, `lr_scale` (a factor of the
    learning rate, only where it is not 1) and what else the optimizer asks for; the groups with decay first.

    Within a group they keep the model's order; a shared parameter counts once, with the layer that has it
    first; frozen ones are left out. Raises ConfigError when a pattern of `no_decay` or `groups` matches no
    parameter, or when nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    patterns = [(word, "no_decay") for word in optimizer.no_decay if word not in EXEMPTIONS]
    patterns += [(group.match, "groups") for group in optimizer.groups]
    check_patterns(patterns, names, "optimizer")
    found: dict[str, dict[str, Any]] = {}
    for name, parameter, owner in trainable(model):
        options: dict[str, Any] = {"weight_decay": optimizer.weight_decay, **optimizer.options_of(name, parameter)}
        own = next((group for group in optimizer.groups if fnmatch.fnmatchcase(name, group.match)), None)
        if own is not None and own.weight_decay is not None:
            options["weight_decay"] = own.weight_decay
        elif optimizer.weight_decay > 0 and is_exempt(name, parameter, owner, optimizer.no_decay):
            options["weight_decay"] = 0.0
        scale = 1.0 if own is None else own.lr / optimizer.lr if own.lr is not None else own.lr_scale or 1.0
        if scale != 1:
            options["lr_scale"] = scale
        found.setdefault(repr(options), {"params": [], **options})["params"].append(parameter)
    if not found:
        raise ConfigError([Diagnostic("the model has nothing to train: all its parameters are frozen or it has none")])
    return sorted(found.values(), key=lambda group: group["weight_decay"] == 0)


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Each parameter that is trained, with its name and the module that has it first."""
    owners = {id(p): module for module in reversed(list(model.modules())) for p in module.parameters(recurse=False)}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter, owners[id(parameter)]


def is_exempt(name: str, parameter: nn.Parameter, owner: nn.Module, words: list[str]) -> bool:
    """Whether one of `words` (of EXEMPTIONS, or patterns of names) means this parameter of `owner`."""
    kinds = {
        "bias": name.rpartition(".")[2] == "bias" or name.endswith("_bias"),
        "norm": is_norm(owner, parameter),
        "activation": is_activation(owner),
    }
    return any(kinds[w] if w in kinds else fnmatch.fnmatchcase(name, w) for w in words)


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


def check_patterns(patterns: Iterable[tuple[str, str]], names: list[str], section: str) -> None:
    """Raise ConfigError for the patterns, each with its key in `section`, that match none of the parameters' names."""
    void = [(p, key) for p, key in patterns if not any(fnmatch.fnmatchcase(name, p) for name in names)]
    if void:
        raise ConfigError(_no_match(pattern, key, names, section) for pattern, key in void)


def _no_match(pattern: str, key: str, names: list[str], section: str) -> Diagnostic:
    near = suggest(pattern, [*EXEMPTIONS, *names] if key != "groups" else names)
    notes = [f"did you mean `{near}`?"] if near else []
    if key != "groups":
        words = ", ".join(f"`{w}`" for w in EXEMPTIONS)
        notes.append(f"`{key}` takes {words} and patterns of whole parameter names")
    notes.append(f"the model's parameters: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}")
    return Diagnostic(f"`{pattern}` in `{section}.{key}` matches no parameter of the model", notes=notes)
