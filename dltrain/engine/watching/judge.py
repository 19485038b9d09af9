"""Which layers are ill: rules over looks. Numbers flow in, findings out.

    silent      half of an activation's units, or more, let no gradient pass, for two looks and 128 examples
    flat        80 % of a sigmoid's outputs, or more, are saturated, for two looks
    infinite    the first layer whose outputs are not finite
    exploding   a gradient 1,000 times the loss of guessing, for two looks, or at once 10,000 times
    far         a step moves a layer by half of its own size, or more, for two looks
    still       a step does not move a layer, though it should learn and others do, for two looks
    vanishing   a gradient is a millionth of the largest one's, for two looks

Two looks count that are some steps apart: the first steps of a sound training may be wild. The rules are coarse on
purpose: what a training survives is not told. docs/watching.md says what they leave alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dltrain.runs.reports import Finding

SILENT_SHARE, FLAT_SHARE = 0.5, 0.8
EXAMPLES = 128
"""Examples for which a unit must be silent: one that fires for 2 % of them is seen to fire with 92 %."""
LOOKS, APART = 2, 5
"""Looks for which something lasts, and the steps from the first to the last of them."""
LONG, LONGEST = 1e3, 1e4
FAR, STILL, MOVES, VANISHED = 0.5, 1e-8, 1e-6, 1e-6
RESTING = 1e-3
"""Share of the peak learning rate below which steps are small because the schedule says so."""


@dataclass(frozen=True)
class Seen:
    """The numbers of one look."""

    step: int
    examples: int
    pace: float
    """The learning rate as a share of its peak."""
    outputs: Mapping[str, tuple[float, float]]
    """Mean and deviation by layer, in the order in which they run."""
    silent: Mapping[str, Tensor]
    """Which units (C,) are silent, by layer; bool, on the CPU."""
    flat: Mapping[str, float]
    changes: Mapping[str, tuple[float, float, float]]
    """Norms of gradient, weights and update, by layer."""


@dataclass
class Judge:
    """Remembers from look to look what was seen: its state is part of a checkpoint."""

    scale: float = 1.0
    """The loss that a gradient is compared with: that of guessing, where it is above 1."""
    searches: bool = False
    """Whether steps are as long as a search along the gradient makes them."""
    streaks: dict[str, list[int]] = field(default_factory=dict)
    """Since which step something is so, and for how many looks, by `kind/layer`."""
    units: dict[str, Tensor] = field(default_factory=dict)
    """The same of the units of a layer: int64 (2, C); 0 looks for those that are not silent."""
    findings: list[Finding] = field(default_factory=list)
    """All of the training."""

    def judge(self, seen: Seen) -> list[Finding]:
        """What is new in a look; each layer is told of once for each thing."""
        known = {(each.kind, each.layer) for each in self.findings}
        new = [each for each in self._found(seen) if (each.kind, each.layer) not in known]
        if any(each.kind in ("silent", "flat", "infinite") for each in (*self.findings, *new)):
            new = [each for each in new if each.kind not in ("still", "vanishing")]  # they follow from that
        self.findings += new
        return new

    def _found(self, seen: Seen) -> Iterator[Finding]:
        for name, numbers in seen.outputs.items():
            if not all(map(math.isfinite, numbers)):
                yield Finding("infinite", name, seen.step, seen.step, math.inf)
                return
        yield from self._silent(seen)
        for name, share in seen.flat.items():
            yield from self._lasting("flat", name, seen, share, ill=share >= FLAT_SHARE)
        yield from self._of_changes(seen)

    def _silent(self, seen: Seen) -> Iterator[Finding]:
        looks = max(LOOKS, math.ceil(EXAMPLES / max(seen.examples, 1)))
        for name, silent in seen.silent.items():
            kept = self.units.get(name)
            if kept is None or kept.shape != (2, len(silent)):
                kept = torch.zeros(2, len(silent), dtype=torch.int64)
            since, count = kept
            since = torch.where(silent & (count == 0), seen.step, since)
            count = torch.where(silent, count + 1, 0)
            self.units[name] = torch.stack([since, count])
            ill = count >= looks
            if (share := float(ill.float().mean())) >= SILENT_SHARE and len(silent) > 1:
                yield Finding("silent", name, seen.step, int(since[ill].max()), share)

    def _of_changes(self, seen: Seen) -> Iterator[Finding]:
        longest = max((gradient for gradient, _, _ in seen.changes.values()), default=0.0)
        moved = {name: update / weight if weight else 0.0 for name, (_, weight, update) in seen.changes.items()}
        rests = seen.pace < RESTING or max(moved.values(), default=0.0) < MOVES * seen.pace  # or all is learnt
        for name, (gradient, weight, _) in seen.changes.items():
            size, far = gradient / self.scale, moved[name]
            at_once = size >= LONGEST or not math.isfinite(size)
            yield from self._lasting("exploding", name, seen, gradient, ill=size >= LONG or at_once, at_once=at_once)
            yield from self._lasting("far", name, seen, far, ill=far >= FAR and not self.searches)
            still = not rests and weight > 0 and far < STILL * seen.pace and math.isfinite(gradient)
            yield from self._lasting("still", name, seen, gradient, ill=still)
            vanished = 0 < gradient < VANISHED * longest < math.inf
            yield from self._lasting("vanishing", name, seen, gradient / longest if longest else 0.0, ill=vanished)

    def _lasting(
        self, kind: str, layer: str, seen: Seen, value: float, *, ill: bool, at_once: bool = False
    ) -> Iterator[Finding]:
        """A finding of what lasts, or need not."""
        key = f"{kind}/{layer}"
        since, count = self.streaks.pop(key, (seen.step, 0))
        if ill:
            self.streaks[key] = [since, count + 1]
            lasts = count + 1 >= LOOKS and seen.step - since >= APART
            if lasts or at_once:
                yield Finding(kind, layer, seen.step, since, value)

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors."""
        told = [[each.kind, each.layer, each.step, each.since, _plain(each.value)] for each in self.findings]
        return {"streaks": dict(self.streaks), "units": dict(self.units), "findings": told}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned. Raises TypeError or ValueError for what it never returns."""
        self.streaks = {str(key): [int(since), int(count)] for key, (since, count) in state["streaks"].items()}
        units = state["units"].items()
        self.units = {str(name): kept.to(torch.int64) for name, kept in units if kept.ndim == 2}
        told = state["findings"]
        self.findings = [Finding(str(a), str(b), int(c), int(d), float(value)) for a, b, c, d, value in told]


def _plain(value: float) -> float:
    return value if math.isfinite(value) else 1e308
