"""Many trainings at once on one device: one program over stacked weights. Imports torch."""

from dltrain.engine.stacked.building import build_stacked
from dltrain.engine.stacked.conditions import why_not_stacked
from dltrain.engine.stacked.member import members_of
from dltrain.engine.stacked.network import NotStackable
from dltrain.engine.stacked.probing import faster_stacked
from dltrain.engine.stacked.training import Event, StackedTraining

__all__ = [
    "Event", "NotStackable", "StackedTraining", "build_stacked", "faster_stacked", "members_of", "why_not_stacked",
]  # fmt: skip
