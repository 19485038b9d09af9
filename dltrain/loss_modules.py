"""Losses per example, computed in float32 (float64 stays). Imports torch: import it where a training is built.

logits_bk: (B, K). targets: (B,) int64 class indices, or (B, K) float rows that sum to 1. Results: (B,).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CrossEntropyLoss(nn.Module):
    """logsumexp(o) - o_y, with label smoothing: target (1 - e) onehot + e / K."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits_bk: Tensor, targets: Tensor) -> Tensor:
        logits_bk, targets = _precise(logits_bk, targets)
        return F.cross_entropy(logits_bk, targets, reduction="none", label_smoothing=self.label_smoothing)


class FocalLoss(nn.Module):
    """sum_k q_k a_k (1 - p_k)^gamma (-log p_k) with p = softmax(o): for a class index, its term alone."""

    alpha: Tensor | None

    def __init__(self, gamma: float = 2.0, alpha: list[float] | None = None) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("alpha", None if alpha is None else torch.tensor(alpha), persistent=False)

    def forward(self, logits_bk: Tensor, targets: Tensor) -> Tensor:
        logits_bk, targets = _precise(logits_bk, targets)
        log_p = F.log_softmax(logits_bk, dim=1)
        # 1 - p as -expm1(log p): exact for p near 1. The floor keeps the power's gradient finite at p = 1.
        rest = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        terms_bk = -(rest**self.gamma) * log_p
        if self.alpha is not None:
            terms_bk = terms_bk * self.alpha.to(terms_bk.dtype)
        if targets.is_floating_point():
            return (targets * terms_bk).sum(dim=1)
        return terms_bk.gather(1, targets[:, None])[:, 0]


def _precise(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits, targets.to(logits.dtype) if targets.is_floating_point() else targets
