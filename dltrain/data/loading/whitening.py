"""Whitening: whole images turned so that their values are uncorrelated and of variance 1.

With the mean m and the covariance U diag(L) U^T of the training part's images, as vectors of values in 0..1:
pca_whiten: diag(L + epsilon)^(-1/2) U^T (x - m); zca_whiten: U times that, the whitening closest to x.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from dltrain.config import ConfigError, Diagnostic

WhiteningKind = Literal["pca_whiten", "zca_whiten"]
LARGEST = 4096
"""Values of an image, at most: their covariance takes the square of that, 128 MiB in float64."""


@dataclass(frozen=True)
class Whitening:
    """mean (D,), axes (D, D) with an eigenvector in each column, largest variance first, and deviations (D,), the
    roots of variance + epsilon; all float32, of D = C H W values in 0..1."""

    kind: WhiteningKind
    mean: Tensor
    axes: Tensor
    deviations: Tensor

    @classmethod
    def fit(cls, kind: WhiteningKind, images: Iterable[Tensor], epsilon: float) -> Whitening:
        """Measured on all images, parts of (n, C, H, W) uint8. Raises ConfigError when they are too large."""
        n, total, products = 0, torch.zeros(0), torch.zeros(0)
        for part in images:
            size = part[0].numel()
            if size > LARGEST:
                message = f"`{kind}` of images of {size:,} values: more than {LARGEST:,} take too large a matrix"
                raise ConfigError([Diagnostic(message, notes=("set `data.size`, or write `scaling: standardize`",))])
            if not n:
                total, products = (torch.zeros(*shape, dtype=torch.float64) for shape in ((size,), (size, size)))
            values = part.flatten(1).double() / 255
            n, total = n + len(values), total + values.sum(0)
            products.addmm_(values.mT, values)
        mean = total / n
        variances, axes = torch.linalg.eigh(products / n - torch.outer(mean, mean))
        variances, axes = variances.flip(0).clamp_min(0), axes.flip(1)
        # An eigenvector has no sign of its own: its largest component is to be positive.
        axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
        return cls(kind, mean.float(), axes.float(), (variances + epsilon).sqrt().float())

    def to_dict(self) -> dict[str, Any]:
        """Words and tensors, for the checkpoint."""
        return {"kind": self.kind, "mean": self.mean, "axes": self.axes, "deviations": self.deviations}

    def on(self, device: torch.device, *, channels_last: bool = False) -> Whitener:
        """The function, with its matrices on the device."""
        return Whitener(self, device, channels_last)


class Whitener:
    """A whitening with its matrices on a device."""

    def __init__(self, whitening: Whitening, device: torch.device, channels_last: bool) -> None:
        axes, deviations = whitening.axes.double(), whitening.deviations.double()
        back = axes.mT if whitening.kind == "zca_whiten" else torch.eye(len(axes), dtype=torch.float64)
        self.mean = whitening.mean.to(device)
        self.matrix = (axes / deviations @ back).float().to(device)  # for rows: (x - m) @ matrix
        self.inverse = (back.mT * deviations @ axes.mT).float().to(device)
        self.format = torch.channels_last if channels_last else torch.contiguous_format

    def apply(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 or float, values 0..255, to float32; the input is left as it is."""
        values = images.flatten(1).float() / 255 - self.mean
        return (values @ self.matrix).view(images.shape).contiguous(memory_format=self.format)

    def invert(self, inputs: Tensor) -> Tensor:
        """Whitened images back to values 0..255, float32."""
        return ((inputs.flatten(1) @ self.inverse + self.mean) * 255).view(inputs.shape)
