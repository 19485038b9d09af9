"""Optimizers, learning-rate schedules, penalties and weight averages. Importing this completes their catalogues."""

from dltrain.optim import optimizers, schedules
from dltrain.optim.averages import Average
from dltrain.optim.optimizers.base import Optimizer
from dltrain.optim.penalties import Penalty
from dltrain.optim.schedules.base import Schedule

__all__ = ["Average", "Optimizer", "Penalty", "Schedule", "optimizers", "schedules"]
