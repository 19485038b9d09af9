"""What learns when: the optimizer's groups over a training. A step of the trainer happens inside `Learning.at`.

Imports torch: import it where a training is built.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from dltrain.config import ConfigError, Diagnostic
from dltrain.layers.roles import role_of
from dltrain.optim.optimizers.base import Group
from dltrain.optim.optimizers.forms import set_momentum

Span = tuple[float, float]
"""Epochs between which something learns: from the first on, and before the second."""
ALWAYS: Span = (0.0, math.inf)
NEVER: Span = (math.inf, math.inf)


@dataclass(frozen=True)
class Timetable:
    """When parameters learn, by their names."""

    groups: Sequence[Group] = ()
    """Of the optimizer; the first that matches a name says when it learns."""
    freeze: Sequence[str] = ()
    """Patterns of names that do not learn before `unfreeze`, whatever the groups say."""
    unfreeze: float = math.inf
    """In epochs."""

    def __bool__(self) -> bool:
        return bool(self.groups or self.freeze)

    def span(self, name: str) -> Span | None:
        """When a parameter learns; None where nothing is said of it."""
        group = next((group for group in self.groups if fnmatch.fnmatchcase(name, group.match)), None)
        waits = any(fnmatch.fnmatchcase(name, pattern) for pattern in self.freeze)
        if group is None and not waits:
            return None
        if group is not None and group.frozen:
            return NEVER
        after, until = (0.0, None) if group is None else (group.after, group.until)
        span = max(after, self.unfreeze) if waits else after, math.inf if until is None else until
        return span if span[0] < span[1] else NEVER


def freeze(model: nn.Module, timetable: Timetable) -> None:
    """Take what never learns out of the training for good."""
    for name, parameter in model.named_parameters():
        if timetable.span(name) == NEVER:
            parameter.requires_grad_(False)


def require_learning(groups: Sequence[dict[str, Any]], total_steps: int, steps_per_epoch: int, key: str) -> None:
    """Raise ConfigError at `key` when there are steps in which no group learns."""
    spans = [group.get("epochs", ALWAYS) for group in groups]
    borders = {0.0, *(border for span in spans for border in span if border < math.inf)}
    for epoch in sorted(borders):
        step = math.ceil(epoch * steps_per_epoch)
        if step < total_steps and not any(_within(span, step / steps_per_epoch) for span in spans):
            message = f"nothing learns after epoch {step / steps_per_epoch:g}: all parameters wait or have ended"
            raise ConfigError([Diagnostic(message, key=key)])


class Learning:
    """Sets the rates of an optimizer's groups for a step, and freezes what does not learn in it.

    Frozen groups are hidden from the optimizer, so that nothing that it does reaches them: decay, normalisation, a
    count of steps. `frozen` holds their parameters, for whoever else changes weights. Modules that keep statistics are
    as in evaluation while none of their parameters learns; one without parameters goes by the names of its buffers.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, timetable: Timetable) -> None:
        self.optimizer = optimizer
        self.frozen: frozenset[Tensor] = frozenset()
        self._statistics = list(_statistics(model, timetable))

    def resting(self, epoch: float) -> list[nn.Module]:
        """The modules that keep statistics, and are as in evaluation at a time in epochs."""
        return [module for module, spans in self._statistics if not any(_within(span, epoch) for span in spans)]

    def at(self, epoch: float, lr: float, momentum: float | None) -> AbstractContextManager[None]:
        """The context of a step at a time in epochs, with the optimizer's learning rate, and its momentum where a
        schedule moves it. Afterwards all groups are there again."""
        learning = []
        for group in self.optimizer.param_groups:
            learns = _within(group.get("epochs", ALWAYS), epoch)
            group["lr"] = lr * group.get("lr_scale", 1.0) if learns else 0.0
            if learns:
                learning.append(group)
        if momentum is not None:
            set_momentum(self.optimizer, momentum)
        resting = self.resting(epoch)
        if len(learning) == len(self.optimizer.param_groups) and not resting:
            return nullcontext()
        return self._only(learning, resting)

    @contextmanager
    def _only(self, learning: list[dict[str, Any]], resting: list[nn.Module]) -> Iterator[None]:
        groups, known = self.optimizer.param_groups, {id(group) for group in learning}
        self.frozen = frozenset(p for group in groups if id(group) not in known for p in group["params"])
        self.optimizer.param_groups = learning
        for module in resting:
            module.training = False  # its children have parameters of their own
        try:
            yield
        finally:
            self.frozen, self.optimizer.param_groups = frozenset(), groups
            for module in resting:
                module.training = True

    def drop_gradients(self) -> None:
        """Forget the gradients of what does not learn in this step."""
        for parameter in self.frozen:
            parameter.grad = None


def _within(span: Span, epoch: float) -> bool:
    return span[0] <= epoch < span[1]


def _statistics(model: nn.Module, timetable: Timetable) -> Iterator[tuple[nn.Module, list[Span]]]:
    """The modules that keep statistics of what they see, with the spans of what is theirs, where something is said."""
    for path, module in model.named_modules() if timetable else ():
        buffers = [name for name, buffer in module.named_buffers(path, recurse=False) if buffer.is_floating_point()]
        if not buffers or not _keeps_statistics(module):
            continue
        parameters = list(module.named_parameters(path, recurse=False))
        found = [(timetable.span(name), p.requires_grad) for name, p in parameters]
        found = found or [(timetable.span(name), True) for name in buffers]
        spans = [span or ALWAYS for span, trained in found if span is not None or trained]
        if spans and any(span != ALWAYS for span in spans):
            yield module, spans


def _keeps_statistics(module: nn.Module) -> bool:
    """Norms, activations that measure their inputs, and weights that torch rewrites."""
    return role_of(module) is not None or type(module).__module__ == parametrizations.__name__
