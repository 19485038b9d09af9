"""Optimizers, schedules, penalties, weight averages, estimates of gradients: this completes their catalogues."""

from dltrain.optim import optimizers, schedules
from dltrain.optim.averages import Average
from dltrain.optim.gradients import Gradient
from dltrain.optim.optimizers.base import Optimizer
from dltrain.optim.penalties import Penalty
from dltrain.optim.schedules.base import Schedule

__all__ = ["Average", "Gradient", "Optimizer", "Penalty", "Schedule", "optimizers", "schedules"]
