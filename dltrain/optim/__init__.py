"""Optimizers, learning-rate schedules and weight averages."""

from dltrain.optim.adaptive import AdaDelta, Adafactor, AdaMax, NAdam, RAdam
from dltrain.optim.averages import EMA
from dltrain.optim.base import Average, Group, LearningRate, Momentum, Optimizer, Schedule, Warmup
from dltrain.optim.matrices import Muon
from dltrain.optim.open_schedules import WSD, CosineRestarts, InverseSqrt
from dltrain.optim.optimizers import SGD, AdaGrad, Adam, AdamW, RMSprop
from dltrain.optim.schedules import Constant, Cosine, Exponential, Linear, MultiStep, OneCycle, Polynomial, Step

__all__ = [
    "EMA", "SGD", "WSD", "AdaDelta", "AdaGrad", "AdaMax", "Adafactor", "Adam", "AdamW", "Average", "Constant",
    "Cosine", "CosineRestarts", "Exponential", "Group", "InverseSqrt", "LearningRate", "Linear", "Momentum",
    "MultiStep", "Muon", "NAdam", "OneCycle", "Optimizer", "Polynomial", "RAdam", "RMSprop", "Schedule", "Step",
    "Warmup",
]  # fmt: skip
