"""Normalisations that torch lacks, as modules. Imported only when a section builds.

All map (B, C, H, W) -> (B, C, H, W), compute in float32 or wider, and return the type of their input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from dltrain.layers.impl.modules import CountsSteps
from dltrain.layers.roles import Role

PER_CHANNEL = (0, 2, 3)
"""The dimensions that statistics of a batch run over."""


def wide(images: Tensor) -> Tensor:
    """The images, or other values, in float32 at least, so that sums over many pixels keep their digits."""
    return images.float() if images.dtype in (torch.float16, torch.bfloat16) else images


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _mean_of_all(values: Tensor) -> Tensor:
    """The mean over all processes, which have as many images each; on the meta device none is asked."""
    if values.device.type == "meta":
        return values
    return all_reduce(values) / dist.get_world_size()  # type: ignore[no-untyped-call, no-any-return]


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch norm with statistics over the batches of all processes, on every device: torch's works on GPUs alone."""

    role: ClassVar[Role] = "norm"

    def forward(self, images: Tensor) -> Tensor:
        if not (self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(images)
        x, size = wide(images), dist.get_world_size()
        mean = _mean_of_all(x.mean(PER_CHANNEL))
        variance = _mean_of_all((x - mean[:, None, None]).square().mean(PER_CHANNEL))
        self._track(mean.detach(), variance.detach(), size * images.numel() // images.shape[1])
        normal = (x - mean[:, None, None]) * (variance[:, None, None] + self.eps).rsqrt()
        output: Tensor = normal * self.weight[:, None, None] + self.bias[:, None, None]
        return output.to(images.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / max(count - 1, 1), share)


class Affine(nn.Module):
    """A gain and an offset per channel, learned: the last step of a normalisation."""

    role: ClassVar[Role] = "norm"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def affine(self, normal: Tensor, like: Tensor) -> Tensor:
        """`normal` times gain plus offset, in the type of `like`."""
        return (normal * self.weight[:, None, None] + self.bias[:, None, None]).to(like.dtype)


class Averaged(Affine):
    """A normalisation with running averages of a centre and a scale per channel.

    `running_center` and `running_scale` are (C,): a share `momentum` of each training batch enters them.
    Evaluation normalises with them, so that an output does not depend on the rest of its batch.
    """

    running_center: Tensor
    running_scale: Tensor

    def __init__(self, channels: int, momentum: float) -> None:
        super().__init__(channels)
        self.momentum = momentum
        self.register_buffer("running_center", torch.zeros(channels))
        self.register_buffer("running_scale", torch.ones(channels))

    @torch.no_grad()
    def track(self, center: Tensor, scale: Tensor) -> None:
        """Let the statistics of a batch, of any shape with C values, enter the averages."""
        for average, value in ((self.running_center, center), (self.running_scale, scale)):
            average.lerp_(value.detach().flatten().to(average.dtype), self.momentum)

    def averages(self) -> tuple[Tensor, Tensor]:
        """Centre and scale, (C, 1, 1) each."""
        return self.running_center[:, None, None], self.running_scale[:, None, None]


Statistics = Callable[[Tensor, float], tuple[Tensor, Tensor]]
"""(images (B, C, H, W), epsilon) -> centre and scale > 0 of each channel, (1, C, 1, 1) each."""


class StatisticsNorm(Averaged):
    """g (x - centre) / scale + b with any two `statistics` of each channel over the batch."""

    def __init__(self, channels: int, statistics: Statistics, momentum: float, epsilon: float) -> None:
        super().__init__(channels, momentum)
        self.statistics, self.epsilon = statistics, epsilon

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            center, scale = self.statistics(wide(images), self.epsilon)
            self.track(center, scale)
        else:
            center, scale = self.averages()
        return self.affine((images - center) / scale, images)


def mean_and_l1(images: Tensor, epsilon: float, factor: float = 1.0) -> tuple[Tensor, Tensor]:
    """The mean, and the mean absolute deviation from it times `factor`."""
    mean = images.mean(PER_CHANNEL, keepdim=True)
    return mean, (images - mean).abs().mean(PER_CHANNEL, keepdim=True) * factor + epsilon


def mean_and_gaussian_l1(images: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """As `mean_and_l1`, times sqrt(pi / 2): the standard deviation of normal data."""
    return mean_and_l1(images, epsilon, math.sqrt(math.pi / 2))


def mean_and_deviation(images: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The mean and the root of the variance, those of batch normalisation."""
    variance, mean = torch.var_mean(images, PER_CHANNEL, correction=0, keepdim=True)
    return mean, (variance + epsilon).sqrt()


def median_and_l1(images: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The median (of an even number, the mean of the two in the middle) and the mean distance from it."""
    count = images.numel() // images.shape[1]
    median = order_statistics(images, (count - 1) // 2, count // 2).mean(-1)[None, :, None, None]
    return median, (images - median).abs().mean(PER_CHANNEL, keepdim=True) + epsilon


def middle_and_range(images: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The middle between the least and the greatest value, and half their distance."""
    least, greatest = images.amin(PER_CHANNEL, keepdim=True), images.amax(PER_CHANNEL, keepdim=True)
    return (least + greatest) / 2, (greatest - least) / 2 + epsilon


class QuantileAndSuperquantile:
    """The quantile q at a level, and how far the superquantile is above the mean.

    The superquantile is the mean of the greatest share 1 - level: q + mean(max(x - q, 0)) / (1 - level)
    (Rockafellar & Uryasev 2000), exact for every number of values.
    """

    def __init__(self, level: float) -> None:
        self.level = level

    def __call__(self, images: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        count = images.numel() // images.shape[1]
        rank = max(math.ceil(self.level * count) - 1, 0)
        quantile = order_statistics(images, rank).squeeze(-1)[None, :, None, None]
        above = (images - quantile).clamp(min=0).mean(PER_CHANNEL, keepdim=True) / (1 - self.level)
        return quantile, quantile + above - images.mean(PER_CHANNEL, keepdim=True) + epsilon


def order_statistics(images: Tensor, *ranks: int) -> Tensor:
    """(B, C, H, W) -> (C, R): the values at these ranks (0 is the least) of each channel.

    Sorting finds where they are, a gather takes them: unlike torch's median and kthvalue that has a
    deterministic form on every device.
    """
    values = images.transpose(0, 1).flatten(1)
    places = values.detach().sort(dim=-1).indices[:, list(ranks)]
    return values.gather(-1, places)


class BatchRenorm(Averaged, CountsSteps):
    """g ((x - m_B) / s_B r + d) + b with r = s_B / s and d = (m_B - m) / s, clipped and taken as constants.

    m_B, s_B are the mean and deviation of the batch, m, s their running averages. The limits of r and d
    open linearly with the number of training steps done, `batches`: `steps` is (start, end for r, end for d).
    """

    counter = "batches"
    batches: Tensor

    def __init__(
        self, channels: int, momentum: float, epsilon: float, r_max: float, d_max: float, steps: tuple[int, int, int]
    ) -> None:
        super().__init__(channels, momentum)
        self.epsilon, self.r_max, self.d_max, self.steps = epsilon, r_max, d_max, steps
        self.register_buffer("batches", torch.tensor(0))

    def limits(self) -> tuple[Tensor, Tensor]:
        """How far r (from 1 / r_max to r_max) and d (from -d_max to d_max) may go now: two scalars."""
        start, end_r, end_d = self.steps
        open_r, open_d = ((self.batches + 1 - start) / (end + 1 - start) for end in (end_r, end_d))
        return 1 + (self.r_max - 1) * open_r.clamp(0, 1), self.d_max * open_d.clamp(0, 1)

    def forward(self, images: Tensor) -> Tensor:
        center, scale = self.averages()
        if not self.training:
            return self.affine((images - center) / scale, images)
        batch_center, batch_scale = mean_and_deviation(wide(images), self.epsilon)
        with torch.no_grad():
            r_max, d_max = self.limits()
            r = torch.clamp(batch_scale / scale, 1 / r_max, r_max)
            d = torch.clamp((batch_center - center) / scale, -d_max, d_max)
        out = self.affine((images - batch_center) / batch_scale * r + d, images)
        self.track(batch_center, batch_scale)
        return out


class SwitchableNorm(Affine):
    """Mean and variance mixed from those of an instance, a layer and a batch, with two softmaxes of three logits.

    `running_mean` and `running_var` (C,) are those of `batch_norm`, and stand for the batch in evaluation.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, momentum: float, epsilon: float) -> None:
        super().__init__(channels)
        self.momentum, self.epsilon = momentum, epsilon
        self.mean_logits = nn.Parameter(torch.ones(3))
        self.variance_logits = nn.Parameter(torch.ones(3))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, images: Tensor) -> Tensor:
        variance, mean = torch.var_mean(wide(images), (2, 3), correction=0)  # of each instance: (B, C)
        layer_variance, layer_mean = total(variance, mean, 1)  # (B, 1)
        if self.training:
            batch_variance, batch_mean = total(variance, mean, 0)  # (1, C)
            self.track(batch_mean, batch_variance, images.numel() // images.shape[1])
        else:
            batch_variance, batch_mean = self.running_var, self.running_mean
        instance, layer, batch = self.mean_logits.softmax(0)
        mean = instance * mean + layer * layer_mean + batch * batch_mean
        instance, layer, batch = self.variance_logits.softmax(0)
        variance = instance * variance + layer * layer_variance + batch * batch_variance
        normal = (images - mean[:, :, None, None]) * (variance + self.epsilon).rsqrt()[:, :, None, None]
        return self.affine(normal, images)

    @torch.no_grad()
    def track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Let the moments of a batch of `count` values per channel enter the averages, the variance without bias."""
        unbiased = variance * (count / max(count - 1, 1))
        for average, value in ((self.running_mean, mean), (self.running_var, unbiased)):
            average.lerp_(value.detach().flatten().to(average.dtype), self.momentum)


def total(variance: Tensor, mean: Tensor, over: int) -> tuple[Tensor, Tensor]:
    """Variance and mean of groups of one size, joined along a dimension: the variance within plus that between."""
    between, joined = torch.var_mean(mean, over, correction=0, keepdim=True)
    return variance.mean(over, keepdim=True) + between, joined


class FilterResponseNorm(Affine):
    """g x / sqrt(mean of x^2 over the map + epsilon) + b.

    With `learned` epsilon is `epsilon` + |e| with a learned scalar e from 1e-4 on.
    """

    def __init__(self, channels: int, epsilon: float, learned: bool) -> None:
        super().__init__(channels)
        self.epsilon = epsilon
        self.learned_epsilon = nn.Parameter(torch.tensor(1e-4)) if learned else None

    def forward(self, images: Tensor) -> Tensor:
        squares = wide(images).square().mean((2, 3), keepdim=True) + self.epsilon
        if self.learned_epsilon is not None:
            squares = squares + self.learned_epsilon.abs()
        return self.affine(images * squares.rsqrt(), images)


class RMSNorm(nn.Module):
    """g x / sqrt(mean of x^2 over the channels of a pixel + epsilon); torch's own warns under autocast."""

    role: ClassVar[Role] = "norm"

    def __init__(self, channels: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, images: Tensor) -> Tensor:
        squares = wide(images).square().mean(1, keepdim=True) + self.epsilon
        return (images * squares.rsqrt() * self.weight[:, None, None]).to(images.dtype)


class LocalResponseNorm(nn.LocalResponseNorm):
    """torch's, in float32: on a CPU its sums have no bfloat16 form."""

    role: ClassVar[Role] = "norm"

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(wide(images)).to(images.dtype)
