"""Random numbers as functions of (seed, step): the one way in which a seed is derived, and the draws of a step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from dltrain.data.types import WHOLE, Share

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def derive_seed(*numbers: int | str) -> int:
    """Numbers and words hashed to a 32-bit seed: the one way in which a seed is ever derived."""
    text = "/".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little")


class Draws:
    """The random numbers of one step: a function of (seed, step), drawn per position in the batch.

    Nothing here synchronises with the device. `host` is for choices that steer Python (which
    operations run), the other methods return tensors on the device.

    Where a batch is shared among processes, the first dimension that is as long as this process's part has
    `examples` is that of examples: what is drawn there is the part that one process alone would have drawn.
    """

    def __init__(
        self, seed: int, step: int, device: torch.device, examples: int = 0, share: Share = WHOLE, *,
        purpose: str = "augmentation",
    ) -> None:  # fmt: skip
        import torch

        self.device, self.examples, self.share = device, examples, share
        self.generator = torch.Generator(device).manual_seed(derive_seed(seed, step, purpose))
        self._place = seed, step

    @cached_property
    def host(self) -> Draws:
        import torch

        return Draws(*self._place, torch.device("cpu"), self.examples, self.share, purpose="host")

    def uniform(self, *size: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 in [low, high)."""
        import torch

        drawn = self._part(size, lambda whole: torch.rand(whole, generator=self.generator, device=self.device))
        return drawn if (low, high) == (0.0, 1.0) else drawn * (high - low) + low

    def normal(self, *size: int) -> Tensor:
        """Standard normal float32."""
        import torch

        return self._part(size, lambda whole: torch.randn(whole, generator=self.generator, device=self.device))

    def integers(self, high: int, *size: int) -> Tensor:
        """int64 in [0, high)."""
        import torch

        return self._part(size, lambda whole: torch.randint(high, whole, generator=self.generator, device=self.device))

    def chance(self, probability: float, *size: int) -> Tensor:
        """bool, true with the given probability."""
        return self.uniform(*size) < probability

    def _part(self, size: tuple[int, ...], draw: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
        if self.share.count == 1 or self.examples not in size:
            return draw(size)
        dim = size.index(self.examples)
        whole = draw((*size[:dim], size[dim] * self.share.count, *size[dim + 1 :]))
        return self.share.of(whole, dim)
