"""Which trials are trained together, as one program, and how many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dltrain.data.types import Splits
from dltrain.engine.decisions import Decision
from dltrain.engine.stacked import faster_stacked, why_not_stacked
from dltrain.experiment.experiment import Experiment
from dltrain.sweeps.study import Study
from dltrain.sweeps.trial import Leg, shortened

MOST = 16
"""Trials that `auto` trains together, at most."""
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


def faster_together(
    experiment: Experiment, study: Study, epochs: float | None, splits: Splits, device: str, plugins: dict[str, str]
) -> tuple[int, str]:
    """How many trials to train together, and why: found by timing steps once, and kept in the journal.

    experiment: what a trial changes. epochs: of a trial.
    """
    if (kept := study.kept("vectorize")) is not None and type(kept[0]) is int and kept[0] >= 1:
        return kept[0], str(kept[1])
    alike, why = _alike(experiment, study)
    if epochs is not None:
        alike = [shortened(trial, epochs, len(splits.train)) for trial in alike]
    decision = faster_stacked(alike, device, plugins, splits) if len(alike) > 1 else Decision(1, why)
    study.keep("vectorize", [decision.value, decision.reason])
    return decision.value, decision.reason


def why_none_together(experiment: Experiment, study: Study) -> str | None:
    """Why no two of the first trials can be trained together; None where some can. experiment: what a trial changes."""
    alike, why = _alike(experiment, study)
    return why if len(alike) < 2 else None


def _alike(experiment: Experiment, study: Study) -> tuple[list[Experiment], str]:
    """Of the first trials, those that can be trained together with the first that can, and why another one can not."""
    found, drawn = list[Experiment](), list[dict[str, Any]]()
    why = "there is one trial"
    for index in range(LOOK_AHEAD * MOST):
        if len(found) == MOST or study.settings.waits_for(index):
            break
        if (setting := study.settings.draw(index)) is None:
            break
        if setting.values in drawn:
            continue
        drawn.append(setting.values)
        trial = experiment.override_all(setting.values)
        reason = why_not_stacked([*found[:1], trial])
        if reason is None:
            found.append(trial)
        else:
            why = reason
    return found, why


def _is_begun(leg: Leg) -> bool:
    return (leg.folder / "experiment.yaml").is_file()
