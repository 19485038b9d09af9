"""Optimizers, learning-rate schedules and weight averages."""

from dltrain.optim.averages import EMA
from dltrain.optim.base import Average, LearningRate, Momentum, Optimizer, Schedule, Warmup
from dltrain.optim.optimizers import SGD, AdaGrad, Adam, AdamW, RMSprop
from dltrain.optim.schedules import Constant, Cosine, Exponential, Linear, MultiStep, OneCycle, Polynomial, Step

__all__ = [
    "EMA", "SGD", "AdaGrad", "Adam", "AdamW", "Average", "Constant", "Cosine", "Exponential", "LearningRate",
    "Linear", "Momentum", "MultiStep", "OneCycle", "Optimizer", "Polynomial", "RMSprop", "Schedule", "Step",
    "Warmup",
]  # fmt: skip
