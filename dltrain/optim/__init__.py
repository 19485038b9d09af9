"""Optimizers, learning-rate schedules, penalties and weight averages."""

from dltrain.optim.adaptive import AdaDelta, Adafactor, AdaMax, NAdam, RAdam
from dltrain.optim.averages import EMA, SWA
from dltrain.optim.base import Average, Group, LearningRate, Momentum, Optimizer, Schedule, Warmup
from dltrain.optim.libraries import LibraryOptimizer
from dltrain.optim.matrices import Muon
from dltrain.optim.open_schedules import WSD, CosineRestarts, InverseSqrt
from dltrain.optim.optimizers import SGD, AdaGrad, Adam, AdamW, RMSprop
from dltrain.optim.penalties import L1, L2, ElasticNet, MaxNorm, Penalty
from dltrain.optim.plateau import ReduceOnPlateau
from dltrain.optim.scaled_layers import LAMB, LARS, SM3, Lion, NovoGrad
from dltrain.optim.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from dltrain.optim.schedules import Constant, Cosine, Exponential, Linear, MultiStep, OneCycle, Polynomial, Step

__all__ = [
    "EMA",
    "L1",
    "L2",
    "LAMB",
    "LARS",
    "SGD",
    "SM3",
    "SWA",
    "WSD",
    "AdaDelta",
    "AdaGrad",
    "AdaMax",
    "Adafactor",
    "Adam",
    "AdamW",
    "Average",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "ElasticNet",
    "Exponential",
    "Group",
    "InverseSqrt",
    "LearningRate",
    "LibraryOptimizer",
    "Linear",
    "Lion",
    "MaxNorm",
    "Momentum",
    "MultiStep",
    "Muon",
    "NAdam",
    "NovoGrad",
    "OneCycle",
    "Optimizer",
    "Penalty",
    "Polynomial",
    "RAdam",
    "RMSprop",
    "ReduceOnPlateau",
    "Schedule",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "Step",
    "Warmup",
]  # fmt: skip
