"""Which parameters are trained how: a network and the optimizer's section flow in, torch parameter groups out.

Imports torch: import it where a training is built.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from dltrain.config import ConfigError, Diagnostic, suggest
from dltrain.optim.exemptions import EXEMPTIONS
from dltrain.optim.impl.learning import ALWAYS, Timetable
from dltrain.optim.impl.roles import exempt, trainable
from dltrain.optim.optimizers.base import Optimizer

TRUNK = 0.75
"""Share of a network's weights above which a module is no layer, but a row of them: the encoder of a transformer."""


def parameter_groups(
    model: nn.Module, optimizer: Optimizer, timetable: Timetable | None = None
) -> list[dict[str, Any]]:
    """The trainable parameters of `model` in groups that share their `weight_decay`, `lr_scale` (a factor of the
    learning rate, only where it is not 1), `epochs` (between which they learn, only where that is not always) and what
    else the optimizer asks for; those that always learn first, and among them those with decay.

    Within a group they keep the model's order; a shared parameter counts once, with the layer that has it first; frozen
    ones are left out. timetable: when they learn, by default as the optimizer's groups say. Raises ConfigError when a
    pattern of `no_decay` or `groups` matches no parameter, or when nothing is left to train.
    """
    timetable = timetable or Timetable(optimizer.groups)
    names = [name for name, _ in model.named_parameters()]
    patterns = [(word, "no_decay") for word in optimizer.no_decay if word not in EXEMPTIONS]
    patterns += [(group.match, "groups") for group in optimizer.groups]
    check_patterns(patterns, names, "optimizer")
    decay = layer_scales(model, optimizer.layer_decay)
    own_options, spared = optimizer.options_of(model), exempt(model, optimizer.no_decay)
    found: dict[str, dict[str, Any]] = {}
    for name, parameter in trainable(model):
        options: dict[str, Any] = {"weight_decay": optimizer.weight_decay, **own_options.get(name, {})}
        own = next((group for group in optimizer.groups if fnmatch.fnmatchcase(name, group.match)), None)
        if own is not None and own.weight_decay is not None:
            options["weight_decay"] = own.weight_decay
        elif optimizer.weight_decay > 0 and name in spared:
            options["weight_decay"] = 0.0
        scale = decay[name] * (1.0 if own is None else own.lr_scale or 1.0)
        if own is not None and own.lr is not None:
            scale = own.lr / optimizer.lr
        if scale != 1:
            options["lr_scale"] = scale
        if (span := timetable.span(name)) is not None and span != ALWAYS:
            options["epochs"] = span
        found.setdefault(repr(options), {"params": [], **options})["params"].append(parameter)
    if not found:
        raise ConfigError([Diagnostic("the model has nothing to train: all its parameters are frozen or it has none")])
    # Libraries keep what all groups share with the first one: if there is one that always learns, it comes first.
    return sorted(found.values(), key=lambda group: ("epochs" in group, group["weight_decay"] == 0))


def layer_scales(model: nn.Module, decay: float | None) -> dict[str, float]:
    """The factor of each parameter's learning rate: decay^d for a layer d layers before the last one.

    timm's networks say what their layers are. In others a layer is a block or another module with weights, in the
    order of the modules, and what has no convolution or linear layer of its own belongs to the one before it. A module
    with most of the network's weights, such as the encoder of a transformer, is as many layers as it has blocks.
    """
    names = [name for name, _ in model.named_parameters()]
    if decay is None or decay == 1:
        return dict.fromkeys(names, 1.0)
    if hasattr(model, "group_matcher"):
        from timm.models import group_parameters

        layers = group_parameters(model, model.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
    else:
        starts = list(_layers(model))
        layers = {name: max(sum(names.index(start) <= index for start in starts) - 1, 0)
                  for index, name in enumerate(names)}  # fmt: skip
    last = max(layers.values())
    return {name: decay ** (last - layers[name]) for name in names}


def _layers(model: nn.Module) -> Iterator[str]:
    """The first parameter of each layer: of the outermost modules with weights that are no mere containers."""
    trunk = TRUNK * sum(parameter.numel() for parameter in model.parameters())

    def inside(module: nn.Module, path: str) -> Iterator[str]:
        for key, child in module.named_children():
            layers = sum(isinstance(part, nn.Linear | nn.modules.conv._ConvNd) for part in child.modules())
            size = sum(parameter.numel() for parameter in child.parameters())
            if isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict) or (layers > 1 and size > trunk):
                yield from inside(child, f"{path}{key}.")
            elif layers:
                yield f"{path}{key}.{next(name for name, _ in child.named_parameters())}"

    return inside(model, "")


def check_patterns(patterns: Iterable[tuple[str, str]], names: list[str], section: str) -> None:
    """Raise ConfigError for the patterns, each with its key in `section`, that match none of the parameters' names."""
    void = [(p, key) for p, key in patterns if not any(fnmatch.fnmatchcase(name, p) for name in names)]
    if void:
        raise ConfigError(no_match(pattern, key, names, f"{section}.{key}") for pattern, key in void)


def no_match(pattern: str, key: str, names: list[str], place: str) -> Diagnostic:
    """The mistake of a pattern, written at `place`, that matches none of the parameters' names. key: that it is of."""
    parts = [f"{name[:end]}.*" for name in names for end, letter in enumerate(name) if letter == "."]
    known = [*dict.fromkeys(parts), *names]
    near = suggest(pattern, [*EXEMPTIONS, *known] if key in ("no_decay", "exempt") else known)
    notes = [f"did you mean `{near}`?"] if near else []
    if key in ("no_decay", "exempt"):
        words = ", ".join(f"`{w}`" for w in EXEMPTIONS)
        notes.append(f"`{key}` takes {words} and patterns of whole parameter names")
    notes.append(f"the model's parameters: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}")
    return Diagnostic(f"`{pattern}` in `{place}` matches no parameter of the model", notes=notes)
