"""torch's L-BFGS for weights in any memory format. Imports torch: import it where a training is built."""

from __future__ import annotations

import torch
from torch import Tensor


class AnyFormatLBFGS(torch.optim.LBFGS):
    """torch's, which views gradients as vectors, and so refuses those of weights in channels_last."""

    def _gather_flat_grad(self) -> Tensor:
        parameters = self.param_groups[0]["params"]
        return torch.cat(
            [torch.zeros_like(p).reshape(-1) if p.grad is None else p.grad.reshape(-1) for p in parameters]
        )
