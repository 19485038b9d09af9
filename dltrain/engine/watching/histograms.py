"""Histograms that wait for nothing: counted on the device, read when they are shown. Imports torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dltrain.runs.reports import Histogram

BINS = 40
MOST = 2**16
"""Values that are counted of a larger tensor, evenly spaced in it."""


def counted(values: Tensor) -> Tensor:
    """(BINS + 4,): least, greatest, sum, sum of squares and the counts between equally spaced edges, in float64 where
    the device has it. By sorting, which gives the same on every device."""
    values = values.detach().flatten()
    values = values[:: -(-values.numel() // MOST)].float().sort().values
    least, greatest = values[0], values[-1]
    inner = torch.arange(1, BINS, device=values.device, dtype=values.dtype) / BINS
    edges = least + (greatest - least) * inner
    below = torch.searchsorted(values, edges.contiguous())
    ends = torch.tensor([0, values.numel()], device=values.device)
    counts = torch.cat([ends[:1], below, ends[1:]]).diff()
    wide = torch.float32 if values.device.type == "mps" else torch.float64
    exact = values.to(wide)
    return torch.cat([torch.stack([least, greatest]).to(wide), exact.sum()[None], exact.square().sum()[None],
                      counts.to(wide)])  # fmt: skip


def read(numbers: list[float]) -> Histogram | None:
    """What `counted` found, or None where a value was not finite."""
    least, greatest, total, squares, *counts = numbers
    if not math.isfinite(squares):
        return None
    greatest = max(greatest, least + 1e-6 * max(abs(least), 1e-6))  # of equal values, edges that are not
    edges = [least + (greatest - least) * number / BINS for number in range(BINS)]
    return Histogram([*edges, greatest], [int(count) for count in counts], total, squares)
