"""Loaders: a source -> batches on the device. Resident or streaming, the batches are the same bit for bit."""

from __future__ import annotations

from typing import Any, Literal

import torch

from dltrain.data.loading.base import Loader
from dltrain.data.loading.pipeline import First
from dltrain.data.loading.resident import ResidentLoader
from dltrain.data.loading.resources import choose_loader, choose_workers
from dltrain.data.loading.streaming import StreamingLoader
from dltrain.data.types import WHOLE, Share, Source

__all__ = ["Loader", "ResidentLoader", "StreamingLoader", "choose_loader", "choose_workers", "make_loader"]


def make_loader(
    kind: Literal["resident", "streaming"], source: Source, layout: Any, *, batch_size: int, seed: int,
    device: torch.device, workers: int = 0, share: Share = WHOLE, first: First | None = None,
    balance: float = 0.0,
) -> Loader:  # fmt: skip
    """The loader of the chosen kind; `Loader.does_first` says whether it takes `first` over.

    Raises ConfigError naming the files that the resident one cannot read.
    """
    if kind == "resident":
        return ResidentLoader(
            source, layout, batch_size=batch_size, seed=seed, device=device, share=share, first=first, balance=balance
        )
    return StreamingLoader(
        source, layout, batch_size=batch_size, seed=seed, device=device, share=share, first=first, balance=balance,
        workers=workers,
    )  # fmt: skip
