"""Whether a checkpoint holds the state of what was built: names, shapes and kinds of numbers, before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.runs.stored import OF_EVERY_TRAINING, SHOWN, StoredError, named


def require_like(found: Mapping[str, Any], expected: Mapping[str, Any], name: str) -> None:
    """Raise StoredError when tensors by name have not the names, shapes and kinds of numbers that are expected."""
    if missing := [key for key in expected if key not in found]:
        raise StoredError(f"{named(name)}: it lacks {_listed(missing)}, which the network has")
    if unknown := [key for key in found if key not in expected]:
        raise StoredError(f"{named(name)}: the network has no {_listed(unknown)}")
    for key, tensor in expected.items():
        if not isinstance(tensor, Tensor):
            continue
        own = found[key]
        if not isinstance(own, Tensor) or own.shape != tensor.shape or _kind(own) != _kind(tensor):
            has = f"{_kind(own)} {tuple(own.shape)}" if isinstance(own, Tensor) else type(own).__name__
            need = f"{_kind(tensor)} {tuple(tensor.shape)}"
            raise StoredError(f"{named(f'{name}.{key}')}: it is {has}, and the network takes {need}")


def require_state_of(
    model: nn.Module, groups: list[dict[str, Any]], parts: Mapping[str, Any], state: dict[str, Any]
) -> None:
    """Raise StoredError when a checkpoint's state is that of another training.

    groups: those of the optimizer. parts: what else has a `state_dict`, which may be empty, by its name in the state.
    """
    require_like(state["model"], model.state_dict(), "model")
    expected = {name: own for name, part in parts.items() if (own := part.state_dict())}
    for name in dict.fromkeys((*expected, *(key for key in state if key not in OF_EVERY_TRAINING))):
        if (name in expected) != bool(state.get(name)):
            raise StoredError(f"{named(name)}: the training has {'one' if name in expected else 'none'}")
        if name in expected:
            require_like(state[name], expected[name], name)
    _require_groups(state["optimizer"]["param_groups"], groups)
    _require_states(state["optimizer"], groups)


def _require_states(found: dict[str, Any], groups: list[dict[str, Any]]) -> None:
    """Raise StoredError when what an optimizer keeps of a weight has not the weight's shape, where fused kernels
    compute with it: they look at no shape, and would write beyond the end of a smaller tensor."""
    for own, group in zip(found["param_groups"], groups, strict=True):
        ids = own.get("params")
        if not isinstance(ids, list) or len(ids) != len(group["params"]) or not all(type(each) is int for each in ids):
            raise StoredError("`optimizer.param_groups`: `params` must be the numbers of the optimizer's weights")
        if not (own.get("fused") or group.get("fused")):
            continue
        for number, weight in zip(ids, group["params"], strict=True):
            for key, kept in found["state"].get(number, {}).items():
                shape = () if key == "step" else tuple(weight.shape)
                if kept is not None and (not isinstance(kept, Tensor) or tuple(kept.shape) != shape):
                    has = tuple(kept.shape) if isinstance(kept, Tensor) else type(kept).__name__
                    where = named(f"optimizer.state.{number}.{key}")
                    raise StoredError(f"{where}: it is {has}, and its weight takes {shape}")


def _require_groups(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Raise StoredError when an optimizer's groups have not the options, by their types, that are expected."""
    if len(found) != len(expected):
        raise StoredError(f"`optimizer.param_groups`: there are {len(found)}, and the optimizer has {len(expected)}")
    for number, (own, group) in enumerate(zip(found, expected, strict=True)):
        for key, value in group.items():
            if key in own and key != "params" and not _alike(own[key], value):
                kinds = f"a {type(own[key]).__name__} where the optimizer has a {type(value).__name__}"
                raise StoredError(f"`optimizer.param_groups.{number}.{key}`: it is {kinds}")


def _alike(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return True
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(one) == len(other) and all(map(_alike, one, other))
    number = (int, float, Tensor)
    are_numbers = [isinstance(value, number) and not isinstance(value, bool) for value in (one, other)]
    return all(are_numbers) or type(one) is type(other)


def _kind(tensor: Tensor) -> str:
    if tensor.dtype == torch.bool:
        return "bool"
    return "float" if tensor.is_floating_point() else "complex" if tensor.is_complex() else "int"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(named, names[:SHOWN])) + more
