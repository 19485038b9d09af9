"""RandAugment, TrivialAugment, AutoAugment and AugMix on batches: every example has its own operations.

The operations are drawn on the host. Examples are sorted by operation, each operation runs once for its
group, with one magnitude per example, and the examples return to their places. All work is on uint8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dltrain.data.augmentation.impl.color import blend, brightness, contrast, per_image, saturation
from dltrain.data.augmentation.impl.geometry import affine, send, turned
from dltrain.data.random import Draws
from dltrain.data.types import Batch

Operation = Callable[[Tensor, Tensor], Tensor]
"""uint8 images (n, C, H, W) and a magnitude for each (n,) to uint8 images; for `warp`, matrices (n, 2, 3)."""


@dataclass(frozen=True)
class Ranges:
    """The largest magnitudes: shear as a slope, shift in pixels along x and y, degrees, |factor - 1|, bits."""

    shear: float
    shift: tuple[float, float]
    degrees: float
    factor: float
    bits: int

    def magnitudes(self, bins: int) -> Tensor:
        """(14, bins) magnitude of each operation at each level, in the order of `NAMES`."""
        level = torch.linspace(0, 1, bins)
        none = torch.zeros(bins)
        shifts = [(level * reach).trunc() for reach in self.shift]
        shears, factors = [level * self.shear] * 2, [level * self.factor] * 4
        dropped = (level * self.bits).round()
        return torch.stack(
            [none, *shears, *shifts, level * self.degrees, *factors, dropped, 255 * (1 - level), none, none]
        )


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """An affine map, nearest pixel, zero outside."""
    return affine(images, matrices, "nearest").to(torch.uint8)


def smooth_warp(images: Tensor, matrices: Tensor) -> Tensor:
    """An affine map, bilinear, zero outside."""
    return affine(images, matrices, "bilinear").round_().clamp_(0, 255).to(torch.uint8)


def sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """Away from the image smoothed by a 3x3 kernel of ones with 5 in the middle; the border is not smoothed."""
    if min(images.shape[2:]) < 3:
        return images.float()
    images = images.float()
    smooth = images.clone()
    middle = smooth[:, :, 1:-1, 1:-1]
    middle.mul_(4).add_(F.avg_pool2d(images, 3, stride=1), alpha=9).div_(13).round_()
    return blend(smooth, images, factors)


def posterize(images: Tensor, dropped: Tensor) -> Tensor:
    """The lowest `dropped` bits set to 0."""
    return images & per_image((256 - dropped.exp2()).to(torch.uint8))


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Values from the threshold on inverted."""
    return torch.where(images >= per_image(thresholds), 255 - images, images)


def autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """Each channel stretched to 0..255; a constant one stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    span = (high - low).float()
    stretched = ((images - low).float() * 255 / span.clamp(min=1)).to(torch.uint8)
    return torch.where(span > 0, stretched, images)


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """Each channel's histogram made flat, by Pillow's rule."""
    levels = images.flatten(2).long()
    counts = levels.new_zeros(*levels.shape[:2], 256).scatter_add_(2, levels, torch.ones_like(levels))
    brightest = counts.gather(2, levels.amax(2, keepdim=True))
    step = (levels.shape[2] - brightest) // 255
    darker = counts.cumsum(2) - counts
    table = ((darker + step // 2) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))
    return table.gather(2, levels).to(torch.uint8).view_as(images)


def _from_factor(adjust: Operation) -> Operation:
    """`adjust` by 1 + magnitude, truncated to uint8 as Pillow and torchvision do."""
    return lambda images, magnitudes: adjust(images, 1 + magnitudes).to(torch.uint8)


NAMES = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate",
    "brightness", "color", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
SIGNED = torch.tensor([0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0], dtype=torch.bool)
GROUP = torch.tensor([0, 1, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9])
OPERATIONS: tuple[Operation, ...] = (
    lambda images, _: images, warp,
    _from_factor(brightness), _from_factor(saturation), _from_factor(contrast), _from_factor(sharpness),
    posterize, solarize, autocontrast, equalize,
)  # fmt: skip


def warp_matrices(operations: Tensor, magnitudes: Tensor, height: int, width: int) -> Tensor:
    """(..., 2, 3) matrices for `warp` of each example; shears keep the top left corner in place."""
    turn = turned(torch.where(operations == 5, magnitudes, 0.0).flatten()).view(*operations.shape, 2, 3)
    slope_x, slope_y = (torch.where(operations == i, magnitudes, 0.0) for i in (1, 2))
    shift_x, shift_y = (torch.where(operations == i, magnitudes, 0.0) for i in (3, 4))
    zero = torch.zeros_like(magnitudes)
    first = torch.stack([zero, slope_x, slope_x * height / 2 - shift_x], -1)
    second = torch.stack([slope_y, zero, slope_y * width / 2 - shift_y], -1)
    return turn + torch.stack([first, second], -2)


def draw_signs(operations: Tensor, magnitudes: Tensor, draws: Draws) -> Tensor:
    """Half of the magnitudes negative, of the operations that have a direction."""
    negative = draws.host.chance(0.5, *operations.shape)
    return torch.where(negative & SIGNED[operations], -magnitudes, magnitudes)


def apply_policy(batch: Batch, draws: Draws, rounds: int, table: Tensor, level: int | None) -> Batch:
    """`rounds` operations on each example, drawn with replacement, of random sign where they have one.

    table: (14, bins) magnitudes on the host. level: the bin of every operation, or None to draw it.
    """
    count = len(batch)
    operations = draws.host.integers(len(NAMES), rounds, count)
    negative = draws.host.chance(0.5, rounds, count)
    if level is None:
        magnitudes = table[operations, draws.host.integers(table.shape[1], rounds, count)]
    else:
        magnitudes = table[operations, level]
    magnitudes = torch.where(negative & SIGNED[operations], -magnitudes, magnitudes)
    return batch.with_(inputs=perform(as_bytes(batch.inputs), operations, magnitudes))


@dataclass(frozen=True)
class Learned:
    """Sub-policies of two operations each: (P, 2) operations, magnitudes and probabilities, on the host."""

    operations: Tensor
    magnitudes: Tensor
    probabilities: Tensor

    @classmethod
    def of(cls, policy: str, table: Tensor) -> Learned:
        """A policy as `learned_policies` writes it. table: (14, 10) magnitudes."""
        steps = [[step.split() for step in line.split(",")] for line in policy.strip().splitlines()]
        # Solarizing from 0 on is inverting.
        names = [["solarize" if name == "invert" else name for name, *_ in line] for line in steps]
        operations = torch.tensor([[NAMES.index(name) for name in line] for line in names])
        levels = torch.tensor([[9 if name == "invert" else int(level) for name, _, level in line] for line in steps])
        probabilities = torch.tensor([[float(probability) for _, probability, _ in line] for line in steps])
        return cls(operations, table[operations, levels], probabilities)


def auto_augment(batch: Batch, draws: Draws, policy: Learned) -> Batch:
    """One sub-policy for each example: its two operations in turn, each done with its own probability."""
    count = len(batch)
    chosen = draws.host.integers(len(policy.operations), count)
    done = draws.host.uniform(2, count) < policy.probabilities[chosen].T
    operations = torch.where(done, policy.operations[chosen].T, NAMES.index("identity"))
    magnitudes = draw_signs(operations, policy.magnitudes[chosen].T, draws)
    return batch.with_(inputs=perform(as_bytes(batch.inputs), operations, magnitudes))


@dataclass(frozen=True)
class Chains:
    """AugMix: `width` chains of `depth` operations (None: 1 to 3), mixed with shares ~ Dirichlet(alpha)."""

    table: Tensor
    """(14, 10) magnitudes on the host."""
    operations: Tensor
    """Those to draw from, as places in `NAMES`."""
    severity: int
    width: int
    depth: int | None
    alpha: float

    def mixed(self, images: Tensor, draws: Draws) -> Tensor:
        """Images (B, C, H, W) to m x + (1 - m) sum_i w_i chain_i(x), m ~ Beta, w ~ Dirichlet; float32."""
        count, images = len(images), as_bytes(images)
        rounds, host = self.depth or 3, draws.host
        which = host.integers(len(self.operations), rounds, self.width, count)
        levels = host.integers(self.severity, rounds, self.width, count)
        operations = self.operations[which]
        if self.depth is None:
            length = host.integers(3, self.width, count) + 1
            operations = torch.where(torch.arange(3)[:, None, None] < length, operations, NAMES.index("identity"))
        magnitudes = draw_signs(operations, self.table[operations, levels], draws).flatten(1)
        chains = perform(images.repeat(self.width, 1, 1, 1), operations.flatten(1), magnitudes, smooth_warp)
        # Drawn by numpy: torch's seeded sampler of gamma numbers is private and not on every device.
        random, everyone = np.random.default_rng(int(host.integers(2**31))), count * draws.share.count
        own = random.beta(self.alpha, self.alpha, (everyone, 1))
        shares = np.concatenate([own, random.dirichlet([self.alpha] * self.width, everyone) * (1 - own)], 1)
        weights = send(draws.share.of(torch.from_numpy(shares.astype(np.float32).T.copy()), 1), images.device)
        views = torch.cat([images, chains]).view(self.width + 1, *images.shape)
        return (views * weights.view(*weights.shape, 1, 1, 1)).sum(0).clamp_(0, 255)


def aug_mix(batch: Batch, draws: Draws, chains: Chains, views: int) -> Batch:
    """Each example mixed with chains of operations; of several views, side by side, the first is the example."""
    if views == 1:
        return batch.with_(inputs=chains.mixed(batch.inputs, draws))
    made = [chains.mixed(batch.inputs, draws) for _ in range(views - 1)]
    images = torch.stack([batch.inputs.float(), *made], 1).flatten(0, 1)
    names = ("targets", "indices", "epochs", "extents")
    rows = {name: getattr(batch, name) for name in names}
    repeated = {name: row.repeat_interleave(views, 0) for name, row in rows.items() if row is not None}
    return batch.with_(inputs=images, **repeated)


def as_bytes(images: Tensor) -> Tensor:
    """Rounded to uint8."""
    return images.round().clamp(0, 255).to(torch.uint8) if images.is_floating_point() else images


def perform(images: Tensor, operations: Tensor, magnitudes: Tensor, move: Operation = warp) -> Tensor:
    """uint8 images (B, C, H, W) after their operations (rounds, B) at their magnitudes, both on the host.

    move: what does the affine ones.
    """
    rounds, (height, width) = len(operations), images.shape[2:]
    kinds: Sequence[Operation] = [move if operation is warp else operation for operation in OPERATIONS]
    matrices = warp_matrices(operations, magnitudes, height, width)
    groups = GROUP[operations]
    order = groups.argsort(stable=True, dim=1)
    device = images.device
    places = send(torch.stack([order, order.argsort(1)]), device)
    magnitudes = send(magnitudes.gather(1, order), device)
    matrices = send(matrices[torch.arange(rounds)[:, None], order], device)
    for i in range(rounds):
        sizes = torch.bincount(groups[i], minlength=len(kinds)).tolist()
        parts = torch.split(images.index_select(0, places[0, i]), sizes)
        values = torch.split(magnitudes[i], sizes)
        warps = torch.split(matrices[i], sizes)
        done = [
            operation(part, warps[g] if operation is move else values[g])
            for g, (operation, part) in enumerate(zip(kinds, parts))
            if sizes[g]
        ]
        images = torch.cat(done).index_select(0, places[1, i])
    return images
