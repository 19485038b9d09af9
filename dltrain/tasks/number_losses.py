"""Losses of numbers: each grows with the distance between what is answered and what is right, beside `mse`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dltrain.config import Positive
from dltrain.tasks.losses import Loss
from dltrain.tasks.outputs import Numbers, Output

if TYPE_CHECKING:
    from torch import nn


class L1(Loss):
    """The mean over the numbers of |o - t|: an answer tends to the median of what it may be, not to the mean."""

    outputs = (Numbers,)
    soft_targets = True
    fact = 0.333333
    name: Literal["l1"] = "l1"

    def build(self, output: Output) -> nn.Module:
        from dltrain.tasks.impl.number_losses import DistancesLoss

        return DistancesLoss()


class Huber(Loss):
    """The mean over the numbers of (o - t)^2 / 2, and from a distance d = |o - t| of `delta` on of
    delta (d - delta / 2): outliers pull no harder than by `delta`."""

    source = "Huber 1964, Robust Estimation of a Location Parameter"
    outputs = (Numbers,)
    soft_targets = True
    fact = 0.166667
    name: Literal["huber"] = "huber"
    delta: Positive = 1.0
    """Distance from which it grows evenly, in standard deviations of the training part's targets."""

    def build(self, output: Output) -> nn.Module:
        from dltrain.tasks.impl.number_losses import HuberLoss

        return HuberLoss(self.delta)


class SmoothL1(Loss):
    """The mean over the numbers of d^2 / (2 beta), and from a distance d = |o - t| of `beta` on of d - beta / 2:
    `huber` divided by beta, which tends to `l1` for a small one."""

    source = "https://arxiv.org/abs/1504.08083"
    outputs = (Numbers,)
    soft_targets = True
    fact = 0.166667
    name: Literal["smooth_l1"] = "smooth_l1"
    beta: Positive = 1.0
    """Distance from which it grows evenly, in standard deviations of the training part's targets."""

    def build(self, output: Output) -> nn.Module:
        from dltrain.tasks.impl.number_losses import SmoothDistancesLoss

        return SmoothDistancesLoss(self.beta)
