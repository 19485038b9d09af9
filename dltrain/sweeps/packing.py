"""Which trials are trained together, as one program."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dltrain.engine.stacked import why_not_stacked
from dltrain.experiment.experiment import Experiment
from dltrain.sweeps.trial import Leg

LOOK_AHEAD = 4
"""Trials that are looked at, for each that is trained together with others."""


class Packer:
    """Puts legs together. experiment: what a trial changes. most: trials that are trained together, at most."""

    def __init__(self, experiment: Experiment, most: int) -> None:
        self.experiment, self.most = experiment, most

    def pack(self, next_leg: Callable[[Sequence[Leg]], Leg | None]) -> list[Leg]:
        """What a free worker trains: a leg that goes on alone, or new ones that can be stacked on the first; [] for
        nothing. next_leg: what comes next, besides given legs."""
        first = next_leg([])
        if first is None:
            return []
        if self.most == 1 or _is_begun(first):
            return [first]
        chosen, left_out = [first], list[Leg]()
        experiment = self.experiment.override_all(first.values)
        while len(chosen) < self.most and len(left_out) < LOOK_AHEAD * self.most:
            leg = next_leg([*chosen, *left_out])
            if leg is None:
                break
            alike = leg.run == first.run and not _is_begun(leg)
            if alike and why_not_stacked([experiment, self.experiment.override_all(leg.values)]) is None:
                chosen.append(leg)
            else:
                left_out.append(leg)
        return chosen


def _is_begun(leg: Leg) -> bool:
    return (leg.folder / "experiment.yaml").is_file()
