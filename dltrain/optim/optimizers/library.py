"""The optimizers of pytorch_optimizer, by name.

Names and arguments are known from a generated table (`scripts/refresh_optimizer_table.py`), so that checking an
experiment does not import the library. The table also says which are left out, and why (`left_out`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from dltrain.config import ConfigError, Diagnostic, Positive, reject, suggest
from dltrain.optim.optimizers.base import Optimizer
from dltrain.optim.optimizers.forms import ready

if TYPE_CHECKING:
    import torch

PREFIX = "pytorch_optimizer/"


@cache
def table() -> dict[str, Any]:
    """`version`; `optimizers`: for each whether it `decays` weights, its default `lr`, its `arguments` with their
    defaults, those that are `fixed`, and whether it takes `one_rate` for all groups; `left_out`: a reason for each."""
    text = resources.files("dltrain.optim.optimizers").joinpath("pytorch_optimizer.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


class LibraryOptimizer(Optimizer):
    """An optimizer of pytorch_optimizer: `{name: pytorch_optimizer/lion, lr: 1e-4, arguments: {betas: [0.9, 0.99]}}`.

    Its own rules on values hold too, and are told before training starts. Many of them read numbers back from the
    device at each step. Left out are those that need more than gradients, such as a closure or the model, and those
    that do not follow the learning rate. A step whose rate is 0 is left out: some would divide by it.
    """

    source = "https://pytorch-optimizers.readthedocs.io"
    waits = True
    name: str
    lr: Positive = 1e-3
    """Peak learning rate; without it the library's own, mostly 1e-3, or a higher one where that hardly learns."""
    arguments: dict[str, Any] = {}
    """Arguments of the library besides lr and weight_decay, by the library's names; the others have its defaults."""

    @classmethod
    def names(cls) -> Iterable[str]:
        return (PREFIX + name for name in table()["optimizers"])

    @classmethod
    def left_out(cls) -> Mapping[str, str]:
        return {PREFIX + name: reason for name, reason in table()["left_out"].items()}

    @model_validator(mode="before")
    @classmethod
    def _own_rate(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("lr") is None:
            entry = table()["optimizers"].get(str(value.get("name")).removeprefix(PREFIX), {})
            return {**value, "lr": entry.get("lr", 1e-3)}
        return value

    @model_validator(mode="after")
    def _known_arguments(self) -> LibraryOptimizer:
        entry = table()["optimizers"].get(self.name.removeprefix(PREFIX))
        if entry is None:
            raise reject("name", f"there is no optimizer `{self.name}`")
        for key, value in self.arguments.items():
            if key not in entry["arguments"]:
                near = suggest(key, entry["arguments"])
                hint = f"; did you mean `{near}`?" if near else f"; it has: {', '.join(entry['arguments'])}"
                raise reject("arguments", f"`{self.name}` has no argument `{key}`{hint}")
            default = entry["arguments"][key]
            if not _fits(value, default):
                raise reject("arguments", f"`{key}` must be like its default, {json.dumps(default)}, not {value!r}")
        if self.weight_decay > 0 and not entry["decays"]:
            raise reject("weight_decay", f"`{self.name}` has no weight decay; use a penalty")
        rates = [group.lr or group.lr_scale for group in self.groups]
        if entry.get("one_rate") and (any(rates) or self.layer_decay not in (None, 1)):
            key = "groups" if any(rates) else "layer_decay"
            raise reject(key, f"`{self.name}` takes one learning rate for all parameters")
        return self

    def build(self, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
        from pytorch_optimizer.optimizer import OPTIMIZERS

        name = self.name.removeprefix(PREFIX)
        entry = table()["optimizers"][name]
        given = {**entry["arguments"], **entry.get("fixed", {}), **self.arguments}
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        if entry["decays"]:
            given["weight_decay"] = self.weight_decay
        else:
            groups = [{key: value for key, value in group.items() if key != "weight_decay"} for group in groups]
        try:
            make: Callable[..., torch.optim.Optimizer] = OPTIMIZERS[name]
            return ready(_still_at_zero(make(groups, lr=self.lr, **given)))
        except (ValueError, TypeError) as error:
            raise ConfigError([Diagnostic(f"`{self.name}` refuses its arguments: {error}")]) from None


def _still_at_zero(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The same optimizer, which takes no step while all its rates are 0."""
    step: Callable[..., Any] = optimizer.step

    def guarded(closure: Callable[[], float] | None = None) -> Any:
        return step(closure) if any(group["lr"] for group in optimizer.param_groups) else None

    optimizer.step = guarded  # type: ignore[method-assign]
    return optimizer


def _fits(value: Any, default: Any) -> bool:
    """Whether a value is of the type of the default; an integer is a number too."""
    if isinstance(default, list):
        return isinstance(value, list) and all(_fits(item, default[0]) for item in value)
    if type(default) is float:
        return type(value) in (int, float)
    return type(value) is type(default)
