"""Balanced sampling: which examples an epoch draws so that rare classes come more often. A function of (seed, epoch).

    a class    p0 p1 p2 ...         an endless row of its own permutations, of which each epoch takes the next piece
    an epoch   a piece of each class, all together as long as the training part

A class that is drawn more often than it has examples is seen more than once; of one that is drawn less often, each
example has its turn in some later epoch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dltrain.data.random import derive_seed


class Balanced:
    """The examples of each epoch. labels: (N,) int64 of the training part. power: see `draws_of`."""

    def __init__(self, labels: Tensor, power: float, seed: int) -> None:
        counts = labels.bincount()
        self.seed, self.draws = seed, draws_of(counts, power)
        self._members = torch.split(labels.argsort(stable=True), counts.tolist())

    def epoch(self, epoch: int) -> Tensor:
        """(N,) int64 indices of the training part, class by class."""
        pieces: list[Tensor] = []
        for label, (members, draws) in enumerate(zip(self._members, self.draws.tolist(), strict=True)):
            if not draws:
                continue
            first, start = divmod(epoch * draws, len(members))
            last, end = divmod((epoch + 1) * draws, len(members))
            if first == last:
                pieces.append(self._permuted(label, first)[start:end])
                continue
            whole = members.repeat(last - first - 1)
            pieces += [self._permuted(label, first)[start:], whole, self._permuted(label, last)[:end]]
        return torch.cat(pieces)

    def _permuted(self, label: int, number: int) -> Tensor:
        members: Tensor = self._members[label]
        generator = torch.Generator().manual_seed(derive_seed(self.seed, number, "class", label))
        return members[torch.randperm(len(members), generator=generator)]


def draws_of(counts: Tensor, power: float) -> Tensor:
    """How often an epoch draws each class, (K,) int64 with the sum of `counts`, in proportion to count^(1 - power).

    1 is as often for all, 0.5 square-root sampling, 0 as the classes are (q = 1 - power in
    https://arxiv.org/abs/1910.09217). counts: (K,) int64, of the examples of each class; an empty one is not drawn.
    """
    weights = torch.where(counts > 0, counts.double() ** (1 - power), 0.0)
    exact = counts.sum() * weights / weights.sum()
    draws = (exact + 1e-9).long()
    left = int(counts.sum() - draws.sum())
    largest = (exact - draws).argsort(descending=True, stable=True)[:left]
    draws[largest] += 1
    return draws


def told(labels: Tensor, power: float) -> str:
    """What balance does to classes, for who trains. labels, power: see Balanced."""
    counts = labels.bincount()
    draws = draws_of(counts, power)
    often, examples = (
        f"{least:,}" if least == most else f"{least:,} to {most:,}"
        for each in (draws, counts)
        for least, most in [(int(each[counts > 0].min()), int(each.max()))]
    )
    return f"an epoch draws {often} examples of a class; the classes have {examples}"
