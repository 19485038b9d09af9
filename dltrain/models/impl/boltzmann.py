"""The restricted Boltzmann machine as a module, with Gibbs sampling and its pseudo-likelihood.

v: visible units (B, D), float32 in 0..1, or any numbers where they are Gaussian. h: hidden units (B, J), 0 or 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dltrain.layers.impl.modules import CountsSteps
from dltrain.tasks.impl.objectives import Objective

UNITS = 16
"""Visible units of each example that its pseudo-likelihood is estimated from."""
DEVIATION = 0.01
"""Of the weights at the start (Hinton 2010, a practical guide to training restricted Boltzmann machines, section 8)."""
SAMPLING = 500
"""Gibbs steps from noise to a picture, where no chains are kept."""


class BoltzmannMachine(CountsSteps):
    """(B, *shape) -> what the visible units are expected to be, given the expected hidden ones, with the objective.

    The weights stand in an encoder from which a classifier can start: P(h_j = 1 | v) = sigmoid(b_j + (v W)_j). Chains
    that are kept go on when a step of the training is done, not when a batch is seen: parts of it start from the same.
    """

    chains: Tensor
    moved: Tensor

    def __init__(self, shape: tuple[int, ...], hidden: int, *, gaussian: bool, steps: int, chains: int | None) -> None:
        super().__init__()
        self.shape, self.gaussian, self.gibbs_steps, self.persistent = shape, gaussian, steps, chains is not None
        size = prod(shape)
        layer = nn.Linear(size, hidden)
        nn.init.normal_(layer.weight, 0, DEVIATION)
        nn.init.zeros_(layer.bias)
        self.encoder = nn.Sequential(nn.Flatten(), layer, nn.Sigmoid())
        self.visible_bias = nn.Parameter(torch.zeros(size))
        if chains is not None:
            self.register_buffer("chains", torch.zeros(chains, size))
            self.register_buffer("moved", torch.zeros(chains, size), persistent=False)

    @torch.no_grad()
    def begin(self, batches: Iterable[Tensor]) -> None:
        """Let each visible unit alone have the mean that it has in batches of examples (B, *shape), and draw the chains
        from that."""
        examples = torch.cat([batch.flatten(1) for batch in batches])
        mean, least = examples.mean(0), 1 / len(examples)
        self.visible_bias.copy_(mean if self.gaussian else mean.clamp(least, 1 - least).logit())
        if self.persistent:
            self.chains.copy_(self._noise(len(self.chains), torch.Generator(mean.device).manual_seed(1)))
            self.moved.copy_(self.chains)

    def _noise(self, count: int, generator: torch.Generator) -> Tensor:
        """Visible units (count, D) that know nothing of one another."""
        mean = self.visible_bias if self.gaussian else torch.sigmoid(self.visible_bias)
        mean = mean.expand(count, -1)
        if self.gaussian:
            return mean + torch.empty_like(mean).normal_(generator=generator)
        return _bernoulli(mean, generator)

    @property
    def _layer(self) -> nn.Linear:
        layer = self.encoder[1]
        assert isinstance(layer, nn.Linear)
        return layer

    def step_done(self) -> None:
        if self.training and self.persistent:
            self.chains.copy_(self.moved)

    def forward(self, inputs: Tensor) -> Objective:
        v = inputs.flatten(1)
        with torch.autocast(inputs.device.type, enabled=False):
            v = v.float() if v.dtype != torch.float64 else v
            with torch.no_grad():
                expected = self.expected_visible(self.expected_hidden(v))
                reported = (expected - v).square().sum(1) / 2 if self.gaussian else -self.pseudo_likelihood(v)
            terms = self._contrast(v) if self.training else torch.zeros_like(reported)
        return Objective(expected.reshape(-1, *self.shape), terms, alone=True, instead=reported)

    def _contrast(self, v: Tensor) -> Tensor:
        """F(v) - F(v') (B,): of v' from each v, or from all chains their mean."""
        if not self.persistent:
            return self.free_energy(v) - self.free_energy(self.gibbs(v, self.gibbs_steps))
        sampled = self.gibbs(self.chains.clone(), self.gibbs_steps)
        with torch.no_grad():
            self.moved.copy_(sampled)
        return self.free_energy(v) - self.free_energy(sampled).mean()

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v) = -log sum_h exp(-E(v, h)) = -a.v - sum softplus(b + v W), (B,)."""
        if self.gaussian:
            own = (v - self.visible_bias).square().sum(1) / 2
        else:
            own = -(v @ self.visible_bias)
        return own - F.softplus(self._layer(v)).sum(1)

    def expected_hidden(self, v: Tensor) -> Tensor:
        """P(h_j = 1 | v), (B, J)."""
        return torch.sigmoid(self._layer(v))

    def expected_visible(self, h: Tensor) -> Tensor:
        """The mean of v given h, (B, D): of binary units P(v_i = 1 | h)."""
        field = F.linear(h, self._layer.weight.t(), self.visible_bias)
        return field if self.gaussian else torch.sigmoid(field)

    @torch.no_grad()
    def gibbs(self, v: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
        """v after so many steps in which h is drawn given v, and v given h."""
        for _ in range(steps):
            h = _bernoulli(self.expected_hidden(v), generator)
            mean = self.expected_visible(h)
            if self.gaussian:
                v = mean + torch.empty_like(mean).normal_(generator=generator)
            else:
                v = _bernoulli(mean, generator)
        return v

    def pseudo_likelihood(self, v: Tensor) -> Tensor:
        """sum_i log P(v_i | the other units) (B,), in nats: log P = log sigmoid(F(v with v_i flipped) - F(v)).

        Of 16 units that lie evenly apart, times D / 16; where they begin depends on the example alone. v is rounded.
        """
        v, weight = (v > 0.5).to(v.dtype), self._layer.weight
        size = v.shape[1]
        count = min(UNITS, size)
        places = torch.arange(count, device=v.device) * size // count
        units = (v.sum(1).long()[:, None] + places) % size
        flips = 1 - 2 * v.gather(1, units)
        before: Tensor = self._layer(v)
        after = before[:, None] + flips[:, :, None] * weight.t()[units]
        gain = F.softplus(before).sum(1, keepdim=True) - F.softplus(after).sum(2) - flips * self.visible_bias[units]
        return F.logsigmoid(gain).sum(1) * (size / count)

    @torch.no_grad()
    def samples(self, count: int) -> Tensor:
        """What visible units are expected to be (count, *shape): of chains that are kept, or after 500 Gibbs steps from
        noise that is the same each time."""
        if self.persistent:
            v = self.chains[:count]
        else:
            generator = torch.Generator(self.visible_bias.device).manual_seed(0)
            v = self.gibbs(self._noise(count, generator), SAMPLING, generator)
        return self.expected_visible(self.expected_hidden(v)).reshape(-1, *self.shape)


def _bernoulli(p: Tensor, generator: torch.Generator | None) -> Tensor:
    """1 with probability p, else 0."""
    return (torch.empty_like(p).uniform_(generator=generator) < p).to(p.dtype)
