"""How many threads torch takes, a number of the whole process. What a training has set is kept apart from what torch
began with, or the program has set: the next training in the process must not take it for a default, nor find anything
else of the last one. Imports torch."""

from __future__ import annotations

import gc
import sys

import torch


class TorchThreads:
    """The number of this process."""

    def __init__(self) -> None:
        self._default = torch.get_num_threads()
        self._ours: int | None = None

    @property
    def default(self) -> int:
        """torch's own number, unless the program has set another since a training did."""
        now = torch.get_num_threads()
        return self._default if now == self._ours else now

    def set(self, number: int) -> None:
        """Take so many for a training."""
        self._default, self._ours = self.default, number
        torch.set_num_threads(number)


TORCH_THREADS = TorchThreads()
"""As torch's number is one for the process, so is what is known of it."""


def forget_last_training(threads: int) -> None:
    """A training must not depend on those made before it in the same process. threads: those that torch began with."""
    gc.collect()
    torch.set_num_threads(threads)  # one that was continued may have had another number
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()  # its limit of recompilations counts over all networks of a process
    torch.cuda.empty_cache()  # the loader is chosen by the memory that is free
