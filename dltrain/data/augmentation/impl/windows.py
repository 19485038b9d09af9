"""Crops, shifts and flips on a CPU as copies of whole rows out of the stored images.

Element by element, a gather of 128 images of 3x32x32 takes as long as a twelfth of a LeNet's training step; whole
rows take a third of that. For this the images are stored with `reach` black pixels on every side, and once
more mirrored; a row of the result is then a window of consecutive bytes. The channels of a pixel lie side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dltrain.data.augmentation.impl.geometry import Mirror, Motion, Shift
from dltrain.data.loading.pipeline import Moves
from dltrain.data.loading.resources import free_memory

SHARE = 0.25
"""Of the free memory, what the store may take."""


class Windows:
    """Images (N, C, H, W) uint8 as rows to cut windows from."""

    def __init__(self, images: Tensor, reach: int) -> None:
        self.shape, self.reach = images.shape, reach
        count, channels, height, width = images.shape
        # An image has black rows below it only: those above it are the ones below its neighbour.
        self.wide, self.tall = (
            (width + 2 * reach) * channels,
            height + reach,
        )
        stored = torch.zeros(reach + 2 * count * self.tall, self.wide, dtype=torch.uint8)
        whole = stored[reach:].view(2, count, self.tall, width + 2 * reach, channels)
        inside = whole[:, :, :height, reach : reach + width]
        inside[0] = images.permute(0, 2, 3, 1)
        inside[1] = images.permute(0, 2, 3, 1).flip(2)
        row = width * channels
        self.windows = stored.view(-1).as_strided((stored.numel() - row + 1, row), (1, 1))

    def starts(self, indices: Tensor, motions: Sequence[Motion]) -> Tensor:
        """Where the rows of the images at indices (B,) begin after all motions in turn: (B, H) int64."""
        count, channels, height, _ = self.shape
        top, upended = _joined([rows for rows, _ in motions], len(indices))
        left, mirrored = _joined([columns for _, columns in motions], len(indices))
        first = (indices + mirrored * count) * self.tall + torch.where(upended, height - 1 - top, top)
        origin = (first + self.reach) * self.wide + (left + self.reach) * channels
        down = torch.where(upended, -self.wide, self.wide)
        return torch.addcmul(origin[:, None], down[:, None], torch.arange(height))

    def cut(self, starts: Tensor) -> Tensor:
        """The images whose rows begin at starts (B, H): (B, C, H, W) uint8, the values that `rearrange` gives."""
        _, channels, _, width = self.shape
        rows = self.windows.index_select(0, starts.view(-1))
        return rows.view(*starts.shape, width, channels).permute(0, 3, 1, 2)


def _joined(motions: Sequence[Shift | Mirror | None], count: int) -> tuple[Tensor, Tensor]:
    """All motions of a line as one: position j shows j + offset of the line, or of the reversed one. (B,) each."""
    offset = torch.zeros(count, dtype=torch.int64)
    mirrored = torch.zeros(count, dtype=torch.bool)
    for motion in motions:
        if isinstance(motion, Shift):  # the only one, see `windows_for`
            offset = motion.offset
        elif isinstance(motion, Mirror):
            offset = torch.where(motion.chosen, -offset, offset)
            mirrored = mirrored ^ motion.chosen
    return offset, mirrored


def windows_for(images: Tensor, moves: Moves) -> Windows | None:
    """A store for these moves, or None where it does not serve: on other devices, for reflections and for
    chains of shifts (which lose pixels in between), and when memory is short."""
    reaches = [move.reach for move, _ in moves.parts]
    shifts = [reach for reach in reaches if reach != 0]
    if images.device.type != "cpu" or None in reaches or len(shifts) > 1:
        return None
    reach = shifts[0] if shifts else 0
    assert reach is not None
    count, channels, height, width = images.shape
    size = 2 * count * channels * (height + reach) * (width + 2 * reach)
    return Windows(images, reach) if size <= SHARE * free_memory(images.device) else None
