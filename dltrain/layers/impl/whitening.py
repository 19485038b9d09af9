"""The whitening first layer, as a module. Imported only when a network is built."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Whitened(nn.Module):
    """A network behind a convolution with frozen filters: (B, C, H, W) -> what the network puts out."""

    def __init__(
        self, channels: int, maps: int, kernel: int, bias: bool, activation: nn.Module, network: nn.Module
    ) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(channels, maps, kernel, bias=bias)
        self.whiten.weight.requires_grad_(False)
        nn.init.zeros_(self.whiten.weight)
        if self.whiten.bias is not None:
            nn.init.zeros_(self.whiten.bias)
        self.activation = activation
        self.network = network

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        out: Tensor | tuple[Tensor, ...] = self.network(self.activation(self.whiten(images)))
        return out

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor], epsilon: float) -> None:
        """Set the filters from scaled images (B, C, H, W), so that all maps have variance 1 / (1 + epsilon / its
        eigenvalue) on them."""
        weight = self.whiten.weight
        size = weight[0].numel()
        covariance = torch.zeros(size, size, dtype=torch.float64)
        patches = 0
        for images in batches:
            found = F.unfold(images.float(), weight.shape[2:]).transpose(1, 2).reshape(-1, size)
            covariance += (found.T @ found).double().cpu()
            patches += len(found)
        values, vectors = torch.linalg.eigh(covariance / patches)
        filters = (vectors / (values.clamp(min=0) + epsilon).sqrt()).T.flip(0)  # the greatest eigenvalue first
        filters = filters.reshape(-1, *weight.shape[1:])
        weight.copy_(torch.cat([filters, -filters]))
