"""Where the parts of a network are that can be exchanged, as its probing forward shows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn

from dltrain.layers.impl.probe import Probe
from dltrain.layers.roles import role_of

_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, nn.GroupNorm, nn.InstanceNorm2d)
_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def is_gate(module: nn.Module) -> bool:
    """Whether a module is the sigmoid of a gate, in one of the forms that libraries use."""
    return type(module).__name__.lower().startswith(("sigmoid", "hardsigmoid"))


def is_activation(module: nn.Module) -> bool:
    """Whether a module is an activation and no gate."""
    return role_of(module) == "activation" and not is_gate(module)


def gated(probe: Probe) -> set[str]:
    """The modules that own a gate (squeeze-and-excitation blocks, for instance) and all that is in them."""
    owners = {name.rpartition(".")[0] for name, module in probe.modules.items() if is_gate(module)}
    return {name for name in probe.modules if any(name == owner or name.startswith(f"{owner}.") for owner in owners)}


def activations(probe: Probe) -> tuple[list[str], list[str]]:
    """The activations of the network, and those that stay because a gate needs them. One on the logits is neither."""
    inside = gated(probe)
    names = [name for name, module in probe.modules.items() if is_activation(module)]
    last = max((call.order for name in weighted(probe) for call in probe.calls[name]), default=0)
    hidden = [name for name in names if any(call.order < last for call in probe.calls.get(name, []))]
    return [name for name in hidden if name not in inside], [name for name in hidden if name in inside]


def norms(probe: Probe) -> list[str]:
    """The norms of maps, outside gates."""
    inside = gated(probe)
    return [name for name in probe.called(_NORMS) if name not in inside]


def weighted(probe: Probe) -> list[str]:
    """The linear layers and convolutions, in the order of their calls."""
    return list(probe.called(_WEIGHTED))


def blocks(probe: Probe) -> list[str]:
    """The blocks of the network: the outermost modules with at least two convolutions and an activation, called once,
    with maps of more than one pixel in and out. What only hands on to such blocks is none itself.
    """
    inside = gated(probe)
    return list(_blocks(probe, "", inside))


def _blocks(probe: Probe, name: str, inside: set[str]) -> Iterator[str]:
    for key, child in probe.modules[name].named_children():
        path = f"{name}.{key}" if name else key
        if path in inside:
            continue
        below = list(_blocks(probe, path, inside)) if _hands_on(probe, path, child) else []
        if below:
            yield from below
        elif not isinstance(child, _CONTAINERS) and _is_block(probe, path, child, inside):
            yield path


def _hands_on(probe: Probe, path: str, module: nn.Module) -> bool:
    """Whether a module only calls its children, one after the other, as a Sequential does."""
    return isinstance(module, _CONTAINERS) or not probe.functions.get(path)


def _is_block(probe: Probe, path: str, module: nn.Module, inside: set[str]) -> bool:
    calls = probe.calls.get(path, [])
    if len(calls) != 1 or calls[0].inputs.ndim != 4 or calls[0].output.ndim != 4:
        return False
    if calls[0].output.shape[2] * calls[0].output.shape[3] <= 1:
        return False
    parts = [(f"{path}.{key}", part) for key, part in module.named_modules() if key]
    convolutions = sum(isinstance(part, nn.modules.conv._ConvNd) for key, part in parts if key not in inside)
    active = any(is_activation(part) or key in probe.functional for key, part in parts) or path in probe.functional
    return convolutions >= 2 and active


def branch_end(probe: Probe, block: str) -> str | None:
    """The module whose output a residual block adds to its shortcut, or None when the block makes no such sum.

    Of the two summands it is the first that a module of the block made: libraries write the branch first.
    """
    sums = probe.additions.get(block, [])
    if len(sums) != 1:
        return None
    makers = (probe.producer(operand, block, sums[0].order) for operand in sums[0].operands)
    return next((maker for maker in makers if maker is not None), None)


def branch(probe: Probe, block: str) -> list[str]:
    """The layers with weights on the branch of a residual block, in order, or none where they form no chain: from the
    sum back, each module's input is what the one before it returned.
    """
    sums = probe.additions.get(block, [])
    end = branch_end(probe, block)
    if end is None:
        return []
    last = probe.calls[end][-1]
    start, tensor, order, found = probe.calls[block][0].inputs, last.output, sums[0].order, []
    while tensor is not start:
        made = [
            (call.order, name, call)
            for name, calls in probe.calls.items()
            if name.startswith(f"{block}.") and not probe.modules[name]._modules
            for call in calls
            if call.output is tensor and call.inputs is not tensor and call.order < order
        ]
        if not made:
            return []
        order, name, call = max(made, key=lambda row: row[0])
        tensor = call.inputs
        if isinstance(probe.modules[name], _WEIGHTED):
            found.append(name)
    return found[::-1]


def last_norm(probe: Probe, block: str) -> str | None:
    """The norm that the branch of a residual block ends in, or None when something with weights follows it."""
    end = branch_end(probe, block)
    if end is None:
        return None
    inside = [name for name in probe.calls if name == end or name.startswith(f"{end}.")]
    ordered = sorted((name for name in inside if ".extra" not in name), key=lambda name: probe.calls[name][-1].order)
    ends = [name for name in ordered if isinstance(probe.modules[name], (*_NORMS, *_WEIGHTED))]
    return ends[-1] if ends and isinstance(probe.modules[ends[-1]], _NORMS) else None


def pools(probe: Probe) -> list[str]:
    """The pools of a plain network that see more than one pixel and more than the whole map at once."""
    names: Iterable[str] = probe.called((nn.MaxPool2d, nn.AvgPool2d))
    return [name for name in names if all(min(call.output.shape[2:]) >= 1 for call in probe.calls[name])]
