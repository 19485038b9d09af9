"""build_stacked: experiments -> StackedTraining. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dltrain.data.types import Splits
from dltrain.engine.builder import build_together
from dltrain.engine.stacked.conditions import why_not_stacked
from dltrain.engine.stacked.network import NotStackable
from dltrain.engine.stacked.training import StackedTraining
from dltrain.experiment.experiment import Experiment


def build_stacked(
    experiments: Sequence[Experiment],
    device: str = "auto",
    states: Sequence[dict[str, Any] | None] | None = None,
    plugins: dict[str, str] | None = None,
    splits: Splits | None = None,
) -> StackedTraining:
    """The trainers of experiments as one training, which reads its data once.

    states: the checkpoint that each goes on from. splits: see build. Raises NotStackable with the reason when they
    cannot be trained so, and ConfigError when the data does not fit one of them.
    """
    if (reason := why_not_stacked(experiments)) is not None:
        raise NotStackable(reason)
    trainers = build_together(experiments, device, states, plugins, splits)
    for trainer, state in zip(trainers, states or [], strict=bool(states)):
        if state is not None:
            trainer.load_state_dict(state)
    return StackedTraining(trainers)
