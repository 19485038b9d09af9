"""Penalties as they run. Imports torch: import it where a training is built."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from dltrain.optim.exemptions import EXEMPTIONS
from dltrain.optim.impl.groups import check_patterns
from dltrain.optim.impl.roles import exempt, trainable
from dltrain.optim.penalties import Penalty


class Penalties:
    """The penalties of a training on the weights of its network.

    Raises ConfigError when a pattern of `exempt` matches no parameter.
    """

    def __init__(self, model: nn.Module, penalties: Sequence[Penalty]) -> None:
        names = [name for name, _ in model.named_parameters()]
        for index, penalty in enumerate(penalties):
            patterns = [(word, "exempt") for word in penalty.exempt if word not in EXEMPTIONS]
            check_patterns(patterns, names, f"penalties.{index}")
        self._weights = []
        for penalty in penalties:
            spared = exempt(model, penalty.exempt)
            self._weights.append((penalty, [p for name, p in trainable(model) if name not in spared]))

    def loss(self, frozen: Collection[Tensor] = ()) -> Tensor | None:
        """What to add to the loss, a scalar, without `frozen` weights; None when all are bounds. Differentiable."""
        learning = [(penalty, w) for penalty, weights in self._weights for w in weights if w not in frozen]
        terms = [penalty.value(weight) for penalty, weight in learning]
        given = [term for term in terms if term is not None]
        return torch.stack(given).sum() if given else None

    @torch.no_grad()
    def bound(self, frozen: Collection[Tensor] = ()) -> None:
        """Change the weights in place, after the optimizer's step; `frozen` ones stay as they are."""
        for penalty, weights in self._weights:
            for weight in weights:
                if weight not in frozen:
                    penalty.bound(weight)
