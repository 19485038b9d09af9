"""Activations that torch lacks, as modules. Imported only when a section builds.

All map (B, C) or (B, C, H, W) to the same shape and type, and compute in float32 or wider. The file's name keeps
their parameters from weight decay. All are vectors, so that optimizers for matrices such as Muon leave them alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from dltrain.layers.impl.modules import CountsSteps
from dltrain.layers.impl.norms import wide
from dltrain.layers.roles import Role


class Formula(nn.Module):
    """`formula` with its learned parameters, one of each for every channel, or for all where `channels` is None."""

    role: ClassVar[Role] = "activation"

    def __init__(
        self, formula: Callable[..., Tensor], learned: dict[str, float | list[float] | None], channels: int | None
    ) -> None:
        super().__init__()
        self.formula = formula
        self.shapes: dict[str, tuple[int, ...]] = {}
        for name, start in learned.items():
            values = torch.tensor(0.0 if start is None else start)
            if channels is not None:
                values = values[..., None].repeat_interleave(channels, -1)
            self.shapes[name] = tuple(values.shape)
            values = torch.randn_like(values) if start is None else values
            self.register_parameter(name, nn.Parameter(values.flatten()))
        self.per_channel = channels is not None

    def forward(self, x: Tensor) -> Tensor:
        ones = [1] * (x.ndim - 2) if self.per_channel else []
        parameters = {name: getattr(self, name).view((*shape, *ones)) for name, shape in self.shapes.items()}
        return self.formula(wide(x), **parameters).to(x.dtype)


class Maxout(nn.Module):
    """The greatest of k affine maps of the channels; weights ~ N(0, 1 / C), which for k = 2 keeps the mean square."""

    role: ClassVar[Role] = "activation"

    def __init__(self, channels: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.maps = nn.Conv2d(channels, pieces * channels, 1)
        nn.init.normal_(self.maps.weight, std=channels**-0.5)
        assert self.maps.bias is not None
        nn.init.zeros_(self.maps.bias)

    def forward(self, x: Tensor) -> Tensor:
        out = self.maps(x if x.ndim == 4 else x[:, :, None, None]).view(x.shape[0], -1, *x.shape[2:])
        greatest: Tensor = reduce(torch.maximum, out.chunk(self.pieces, 1))
        return greatest


class PiecewiseLinear(CountsSteps):
    """N equal pieces between two ends, with a learned slope beyond each; one function, or one per channel.

    In the first `until` training steps it is ReLU on [-3, 3], learns nothing, and running averages of the mean and the
    deviation of its inputs are kept. They place the ends from then on, at mean -+ 3 deviations, with the values of
    ReLU at the knots. The parameters are shifts of ends and values from there, and the outer slopes: all that
    changes at that step are the averages, so that a state holds everything. `steps` counts the steps done.
    """

    role: ClassVar[Role] = "activation"

    mean: Tensor
    deviation: Tensor
    steps: Tensor

    def __init__(self, channels: int | None, pieces: int, until: int) -> None:
        super().__init__()
        self.pieces, self.until = pieces, until
        self.count = channels or 1
        self.ends = nn.Parameter(torch.zeros(self.count * 2))
        self.values = nn.Parameter(torch.zeros(self.count * (pieces + 1)))
        self.slopes = nn.Parameter(torch.tensor([0.0, 1.0]).repeat(self.count))
        self.register_buffer("mean", torch.zeros(self.count))
        self.register_buffer("deviation", torch.ones(self.count))
        self.register_buffer("steps", torch.tensor(0))

    @torch.no_grad()
    def track(self, x: Tensor) -> None:
        """Let the statistics of a batch (..., C) enter the averages (a tenth) while they are kept."""
        deviation, mean = torch.std_mean(x, tuple(range(x.ndim - (self.count > 1))), correction=0)
        share = torch.where(self.steps < self.until, 0.1, 0.0)
        for average, value in ((self.mean, mean), (self.deviation, deviation)):
            average.lerp_(value.to(average.dtype).reshape(-1), share.to(average.dtype))

    def shape(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of the F functions: the left ends and the widths (F, 1), the values at the knots (F, N + 1), and the outer
        slopes (F, 2)."""
        learns = self.steps >= self.until if self.training else self.steps > self.until
        ends, values, slopes = (
            torch.where(learns, p, p.detach()).view(self.count, -1) for p in (self.ends, self.values, self.slopes)
        )
        center = torch.where(learns, self.mean, 0.0)[:, None]
        reach = torch.where(learns, 3 * self.deviation, 3.0)[:, None]
        knots = center + reach * torch.linspace(-1, 1, self.pieces + 1, device=reach.device, dtype=reach.dtype)
        width = 2 * reach + ends[:, 1:] - ends[:, :1]
        return center - reach + ends[:, :1], width.clamp(min=1e-3), knots.relu() + values, slopes

    def forward(self, x: Tensor) -> Tensor:
        inputs = wide(x).movedim(1, -1)  # (..., C)
        if self.training:
            self.track(inputs)
        left, width, values, slopes = (part.to(inputs.dtype) for part in self.shape())
        rises, index = values.diff(dim=1), torch.arange(self.pieces, device=x.device)
        gradients = torch.cat([slopes[:, :1], rises * self.pieces / width, slopes[:, 1:]], 1)
        offsets = torch.cat([values[:, :1], values[:, :-1] - index * rises, values[:, -1:] - slopes[:, 1:] * width], 1)
        table = torch.stack([gradients, offsets], -1).flatten(0, 1)  # y = gradient (x - left) + offset in each piece

        distance = inputs - left.flatten()
        with torch.no_grad():
            place = (distance * (self.pieces / width).flatten()).floor().clamp(-1, self.pieces)
            rows = torch.arange(self.count, device=x.device) * (self.pieces + 2) + 1
            piece = place.nan_to_num(-1).long() + rows
        gradient, offset = functional.embedding(piece, table).unbind(-1)
        return (distance * gradient + offset).to(x.dtype).movedim(-1, 1)
