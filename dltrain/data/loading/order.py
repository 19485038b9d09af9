"""The order of training examples: a function of (seed, epoch).

    epoch 0: p0[0:B] p0[B:2B] ... p0[..N] + the first of p1     epoch 1: p1[0:B] ...

Each epoch sees its own permutation whole; the examples that complete the last batch of an epoch are seen
again in their own place, so that every batch has one shape. Where classes are balanced, a permutation is one of the
examples that the epoch draws (balance.py), as many as there are.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.loading.balance import Balanced
from dltrain.data.random import derive_seed


class Order:
    """Which examples make up each step's batch. Raises ConfigError when a batch is larger than the split."""

    def __init__(self, examples: int, batch_size: int, seed: int, balanced: Balanced | None = None) -> None:
        if batch_size > examples:
            message = f"a batch of {batch_size} is larger than the training split of {examples} examples"
            raise ConfigError([Diagnostic(message, notes=(f"write training.batch_size: {examples} or less",))])
        self.examples, self.batch_size, self.seed, self.balanced = examples, batch_size, seed, balanced
        self.steps_per_epoch = -(-examples // batch_size)
        self._permutations: dict[int, Tensor] = {}

    def permutation(self, epoch: int) -> Tensor:
        """(N,) int64 on the CPU."""
        if epoch not in self._permutations:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, "order"))
            kept = {e: p for e, p in self._permutations.items() if abs(e - epoch) == 1}
            mixed = torch.randperm(self.examples, generator=generator)
            drawn = mixed if self.balanced is None else self.balanced.epoch(epoch)[mixed]
            self._permutations = {**kept, epoch: drawn}
        return self._permutations[epoch]

    def epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Example indices of all the epoch's batches, one after the other, and the epoch each belongs to:
        two tensors (steps_per_epoch * batch_size,) int64 on the CPU."""
        own = self.permutation(epoch)
        borrowed = self.steps_per_epoch * self.batch_size - self.examples
        epochs = torch.full((self.examples + borrowed,), epoch)
        if not borrowed:
            return own, epochs
        epochs[self.examples :] += 1
        return torch.cat([own, self.permutation(epoch + 1)[:borrowed]]), epochs

    def batches(self, start_step: int) -> Iterator[Tensor]:
        """(batch_size,) int64 indices of step start_step, start_step + 1, ... without end."""
        epoch, first = divmod(start_step, self.steps_per_epoch)
        while True:
            indices, _ = self.epoch(epoch)
            yield from indices.view(-1, self.batch_size)[first:]
            epoch, first = epoch + 1, 0


def evaluation_indices(targets: Tensor, batch_size: int, limit: int | None = None) -> list[tuple[Tensor, int]]:
    """Indices (B,) of each batch of an evaluation, and how many of them count: the last is completed by repeating.

    targets: (N, ...) on the CPU; of classes, (N,) int64. All examples in file order; with fewer than these in `limit`
    batches, the same sample each time, with all classes in proportion.
    """
    examples = len(targets)
    if limit is not None and limit * batch_size < examples:
        classes = targets if targets.dtype == torch.int64 else torch.zeros(examples, dtype=torch.int64)
        return [(indices, batch_size) for indices in stratified(classes)[: limit * batch_size].view(limit, -1)]
    starts = range(0, examples, batch_size)
    return [(torch.arange(s, s + batch_size) % examples, min(batch_size, examples - s)) for s in starts]


def stratified(labels: Tensor) -> Tensor:
    """The indices (N,) in an order of which every beginning has each class in proportion, but for about one example.

    It is mixed, and depends on the labels (N,) int64 alone: the examples of each class lie evenly over the whole.
    """
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randperm(len(labels), generator=generator)
    grouped = mixed[labels[mixed].argsort(stable=True)]
    counts = labels.bincount()
    rank = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[grouped]]
    start = torch.rand(len(counts), generator=generator, dtype=torch.float64)
    place = (rank + start[labels[grouped]]) / counts[labels[grouped]]
    return grouped[place.argsort(stable=True)]
