"""The watcher of a training: asked before, within and after each watched step, and emptied at each event.

Imports torch: import it where a training is built.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.engine.watching.activity import Activity, Listener
from dltrain.engine.watching.changes import Change, Changes
from dltrain.engine.watching.histograms import read
from dltrain.engine.watching.judge import Judge, Seen
from dltrain.experiment.training import Watch
from dltrain.runs.reports import Finding, Histogram, Look, Row

MOST = 256
"""Examples of a batch that are looked at."""
TAG = "watch"
"""What the tags of all that is seen begin with."""


Telling = Callable[[Sequence[Finding], Mapping[str, str]], list[str]]
"""Findings in words; the mapping says of which class a layer is."""


@dataclass
class _Taken:
    """A look whose numbers are still on the device."""

    step: int
    examples: int
    pace: float
    activity: dict[str, Activity]
    changes: dict[str, Change]


class Watcher:
    """Looks at the layers of a network in some steps."""

    def __init__(
        self, network: nn.Module, section: Watch, total_steps: int, told: Telling, *,
        autocast: Callable[[], AbstractContextManager[Any]], peak: float, part: int, scale: float = 1.0,
        searches: bool = False, leads: bool = True,
    ) -> None:  # fmt: skip
        """peak: the learning rate that a schedule scales. part: the examples of one forward
        pass. scale: the loss of guessing. searches: see Judge. leads: whether this process tells what it sees."""
        self._section, self._total_steps, self._told = section, total_steps, told
        self._autocast, self._peak, self._examples, self._leads = autocast, peak, min(part, MOST), leads
        self.changes = Changes(network)
        self._listener = Listener(network, self.changes.layers)
        self.judge = Judge(scale=max(scale, 1.0), searches=searches)
        self._classes = {name: type(module).__name__ for name, module in network.named_modules()}
        self._taken: list[_Taken] = []
        self._activity: dict[str, Activity] = {}
        self._histograms = False

    def watches(self, step: int) -> bool:
        """Whether step number `step` = 0, 1, ... is looked at: the first, each `every`-th, and the last."""
        done = step + 1
        return done == 1 or done % self._section.every == 0 or done == self._total_steps

    def _shows_histograms(self, step: int) -> bool:
        """In as many looks as the section says, spread evenly over the training."""
        looks = max(self._total_steps // self._section.every, 1)
        number, most = (step + 1) // self._section.every, int(self._section.histograms)
        return most > 0 and (looks <= most or number * most // looks != (number - 1) * most // looks)

    def before(self, step: int, inputs: Tensor, frozen: Collection[Tensor]) -> None:
        """A watched step begins with a batch (B, ...), of which the first part is looked at."""
        self._histograms = self._shows_histograms(step)
        listened = self._listener.listen(inputs[: self._examples], self._autocast, histograms=self._histograms)
        self._activity = listened
        self.changes.before(frozen)

    def gradients(self) -> None:
        """The gradients of the step are there, as they were before they were cut."""
        self.changes.gradients(histograms=self._histograms)

    def after(self, step: int, lr: float) -> None:
        """The weights have moved, with that learning rate."""
        changes = self.changes.after(histograms=self._histograms)
        if self._leads:
            pace = lr / self._peak if self._peak > 0 else 1.0
            self._taken.append(_Taken(step + 1, self._examples, pace, self._activity, changes))
        self._activity = {}

    def looks(self) -> list[Look]:
        """What was seen since this was last asked. It waits for the device."""
        taken, self._taken = self._taken, []
        return [self._judged(each) for each in taken]

    def _judged(self, taken: _Taken) -> Look:
        numbers = _numbers(taken)
        values: dict[str, float] = dict(
            zip(numbers, torch.stack([n.float() for n in numbers.values()]).tolist(), strict=True)
        )

        def of(what: str, name: str) -> float:
            return values[f"{TAG}/{what}/{name}"]

        silent = {n: each.silent.cpu() for n, each in taken.activity.items() if each.silent is not None}
        seen = Seen(
            taken.step, taken.examples, taken.pace,
            outputs={name: (of("mean", name), of("deviation", name)) for name in taken.activity},
            silent=silent,
            flat={name: of("saturated", name) for name, each in taken.activity.items() if each.flat is not None},
            changes={name: (of("gradient", name), of("weight", name), of("moved", name)) for name in taken.changes},
        )  # fmt: skip
        findings = self.judge.judge(seen)
        row: Row = {"step": taken.step}
        row |= {tag: value for tag, value in values.items() if not tag.startswith((f"{TAG}/weight/", f"{TAG}/moved/"))}
        row |= {f"{TAG}/update/{n}": moved / size for n, (_, size, moved) in seen.changes.items() if size > 0}
        return Look(taken.step, row, _histograms(taken), findings, self._told(findings, self._classes))

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """What was seen so far, as far as later sentences depend on it."""
        return self.judge.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.judge.load_state_dict(state)


def _numbers(taken: _Taken) -> dict[str, Tensor]:
    """Scalars of the device by tag."""
    found: dict[str, Tensor] = {}
    for name, each in taken.activity.items():
        found |= {f"{TAG}/mean/{name}": each.mean, f"{TAG}/deviation/{name}": each.deviation}
        if each.silent is not None:
            found[f"{TAG}/dead/{name}"] = each.silent.float().mean()
        if each.flat is not None:
            found[f"{TAG}/saturated/{name}"] = each.flat
    for name, change in taken.changes.items():
        found[f"{TAG}/gradient/{name}"] = change.gradient
        found[f"{TAG}/weight/{name}"], found[f"{TAG}/moved/{name}"] = change.weight, change.update
    return found


def _histograms(taken: _Taken) -> dict[str, Histogram]:
    counted = {f"{TAG}/activations/{n}": each.histogram for n, each in taken.activity.items()}
    counted |= {f"{TAG}/{what}/{n}": each for n, change in taken.changes.items() for what, each in
                change.histograms.items()}  # fmt: skip
    there = {tag: each for tag, each in counted.items() if each is not None}
    if not there:
        return {}
    rows = torch.stack(list(there.values())).tolist()
    found = {tag: read(row) for tag, row in zip(there, rows, strict=True)}
    return {tag: histogram for tag, histogram in found.items() if histogram is not None}
