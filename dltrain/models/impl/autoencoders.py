"""Autoencoders as modules: encoders, decoders, what corrupts inputs, and what codes add to the loss.

inputs: (B, C, H, W) or (B, n), float32. codes: (B, code). Outputs have the shape of the inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dltrain.data.types import ImageShape, InputSpec
from dltrain.layers.activations import Activation
from dltrain.layers.impl.norms import wide
from dltrain.models.derivatives import BY_VALUE
from dltrain.tasks.impl.objectives import Objective

DRAWN = 1024
"""Codes that are drawn once for evaluation; in a larger batch they come again."""


@dataclass(frozen=True)
class Shapes:
    """Makes encoders and decoders for inputs: convolutions of `channels`, then layers of `hidden` units."""

    inputs: InputSpec
    channels: Sequence[int]
    hidden: Sequence[int]
    activation: Activation
    dropout: float

    def coder(self, code: int, activation: Activation, *, tied: bool) -> tuple[nn.Sequential, nn.Sequential]:
        """An encoder whose last layer is the code, with its activation, and the decoder."""
        encoder, size = self.encoder()
        encoder.extend([nn.Linear(size, code), activation.build(code), nn.Dropout(self.dropout)])
        return encoder, self.decoder(code, encoder if tied else None)

    def encoder(self) -> tuple[nn.Sequential, int]:
        """The layers before the code, and how many numbers the last one puts out. Fully connected layers stand in them
        as in an `mlp`, dropout included."""
        layers: list[nn.Module] = []
        for before, after in pairwise(self._maps()):
            layers += [nn.Conv2d(before[0], after[0], 3, stride=2, padding=1), self.activation.build(after[0])]
        layers.append(nn.Flatten())
        size = self._flat
        for units in self.hidden:
            layers += [nn.Linear(size, units), self.activation.build(units), nn.Dropout(self.dropout)]
            size = units
        return nn.Sequential(*layers), size

    def decoder(self, code: int, encoder: nn.Sequential | None = None) -> nn.Sequential:
        """Codes (B, code) to outputs. encoder: whose weights are used again."""
        twins = [layer for layer in reversed(encoder or ()) if isinstance(layer, nn.Linear | nn.Conv2d)]
        sizes, layers = [code, *reversed(self.hidden), self._flat], list[nn.Module]()
        for number, (before, after) in enumerate(pairwise(sizes)):
            layers.append(Transposed(twins[number]) if twins else nn.Linear(before, after))
            layers.append(self.activation.build(after))
        steps = list(pairwise(reversed(self._maps())))
        if not steps:
            layers.pop()
        if isinstance(self.inputs, ImageShape):
            layers.append(nn.Unflatten(1, self._maps()[-1]))
        for number, (maps, larger) in enumerate(steps):
            odd = (1 - larger[1] % 2, 1 - larger[2] % 2)  # both of 7 and 8 pixels become 4
            if twins:
                layers.append(Transposed(twins[len(sizes) - 1 + number], odd))
            else:
                layers.append(nn.ConvTranspose2d(maps[0], larger[0], 3, 2, 1, output_padding=odd))
            layers.append(self.activation.build(larger[0]))
        return nn.Sequential(*(layers[:-1] if steps else layers))

    def _maps(self) -> list[tuple[int, ...]]:
        """(C, H, W) of the images and behind each convolution."""
        if not isinstance(self.inputs, ImageShape):
            return [(self.inputs.size,)]
        found: list[tuple[int, ...]] = [(self.inputs.channels, self.inputs.height, self.inputs.width)]
        for channels in self.channels:
            found.append((channels, *(-(-side // 2) for side in found[-1][1:])))
        return found

    @property
    def _flat(self) -> int:
        return prod(self._maps()[-1])


class Transposed(nn.Module):
    """A layer of the decoder with the weights of one of the encoder's, transposed, and biases of its own."""

    def __init__(self, twin: nn.Linear | nn.Conv2d, odd: tuple[int, ...] = ()) -> None:
        super().__init__()
        self._twin = (twin,)  # no part of this module: its weights are the encoder's
        self._odd = list(odd)
        self.bias = nn.Parameter(torch.zeros(twin.weight.shape[1]))

    def forward(self, inputs: Tensor) -> Tensor:
        weight = self._twin[0].weight
        if weight.ndim == 2:
            return F.linear(inputs, weight.t(), self.bias)
        return F.conv_transpose2d(inputs, weight, self.bias, stride=2, padding=1, output_padding=self._odd)


class Autoencoder(nn.Module):
    """decoder(encoder(inputs)); in training of corrupted inputs, and with what the codes add to the loss."""

    def __init__(
        self, encoder: nn.Sequential, decoder: nn.Sequential, corruption: nn.Module | None, penalty: nn.Module | None
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.corruption, self.penalty = encoder, decoder, corruption, penalty

    def forward(self, inputs: Tensor) -> Tensor | Objective:
        codes = self.encoder(inputs if self.corruption is None else self.corruption(inputs))
        outputs: Tensor = self.decoder(codes)
        if self.penalty is None or not self.training:
            return outputs
        return Objective(outputs, self.penalty(codes))

    def codes(self, inputs: Tensor) -> Tensor:
        """What the decoder gets of inputs (B, ...) that nothing has corrupted: (B, ...)."""
        codes: Tensor = self.encoder(inputs)
        return codes


class Contraction(nn.Module):
    """lambda sum_j f'_j^2 sum_i W_ji^2: the squared Frobenius norm of the derivatives of codes f(W x + b) by x."""

    def __init__(self, encoder: nn.Sequential, activation: str, strength: float) -> None:
        super().__init__()
        self._layer = tuple(layer for layer in encoder if isinstance(layer, nn.Linear))
        self._derivative, self.strength = BY_VALUE[activation], strength

    def forward(self, codes: Tensor) -> Tensor:
        """codes (B, J) -> (B,)."""
        lengths = wide(self._layer[0].weight).square().sum(1)
        return self.strength * (self._derivative(wide(codes)).square() * lengths).expand(codes.shape).sum(1)


class Sparsity(nn.Module):
    """beta sum_j KL(rho | mean_j), KL(r | m) = r log(r / m) + (1 - r) log((1 - r) / (1 - m)); the same for each example
    of a batch, over which the means are."""

    def __init__(self, rho: float, strength: float) -> None:
        super().__init__()
        self.rho, self.strength = rho, strength

    def forward(self, codes: Tensor) -> Tensor:
        """codes (B, J) in 0..1 -> (B,)."""
        means = wide(codes).mean(0).clamp(1e-6, 1 - 1e-6)
        rho = torch.full_like(means, self.rho)
        divergence = rho * (rho / means).log() + (1 - rho) * ((1 - rho) / (1 - means)).log()
        return (self.strength * divergence.sum()).expand(codes.shape[0])


class Absolute(nn.Module):
    """beta sum_j |h_j|."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, codes: Tensor) -> Tensor:
        """codes (B, J) -> (B,)."""
        return self.strength * wide(codes).abs().sum(1)


class Corruption(nn.Module):
    """A random change of the inputs in training."""

    def __init__(self, amount: float) -> None:
        super().__init__()
        self.amount = amount

    def forward(self, inputs: Tensor) -> Tensor:
        return self.changed(inputs) if self.training and self.amount else inputs

    def changed(self, inputs: Tensor) -> Tensor:
        """Inputs (B, ...) of the same shape."""
        raise NotImplementedError


class Mask(Corruption):
    """A share of the values become 0."""

    def changed(self, inputs: Tensor) -> Tensor:
        return inputs * (torch.rand_like(inputs) >= self.amount)


class Gaussian(Corruption):
    """Normal noise of a standard deviation is added."""

    def changed(self, inputs: Tensor) -> Tensor:
        return inputs + self.amount * torch.randn_like(inputs)


class SaltAndPepper(Corruption):
    """A share of the values become the least or the largest of their example, each in half of the cases."""

    def changed(self, inputs: Tensor) -> Tensor:
        drawn, rows = torch.rand_like(inputs), inputs.flatten(1)
        low, high = (value.view(-1, *[1] * (inputs.ndim - 1)) for value in (rows.amin(1), rows.amax(1)))
        return torch.where(drawn < self.amount, torch.where(drawn < self.amount / 2, low, high), inputs)


CORRUPTIONS: dict[str, type[Corruption]] = {"mask": Mask, "gaussian": Gaussian, "salt_and_pepper": SaltAndPepper}


def kl_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(m, s) | N(0, 1)) = -1/2 sum(1 + log s^2 - m^2 - s^2), (B, J) each -> (B,)."""
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1)


class VariationalNetwork(nn.Module):
    """decoder(m + s e), e ~ N(0, 1), with m and log s^2 from the encoder (Kingma & Welling 2013).

    In evaluation e is drawn alike for each place in a batch, for the loss alone: the answer is decoder(m).
    """

    noise: Tensor

    def __init__(self, encoder: nn.Sequential, decoder: nn.Sequential, size: int, code: int, beta: float) -> None:
        super().__init__()
        self.encoder, self.decoder, self.beta = encoder, decoder, beta
        self.mean, self.log_variance = nn.Linear(size, code), nn.Linear(size, code)
        drawn = torch.randn(DRAWN, code, generator=torch.Generator().manual_seed(0), device="cpu")
        self.register_buffer("noise", drawn.to(self.mean.weight.device), persistent=False)

    def forward(self, inputs: Tensor) -> Objective:
        features = self.encoder(inputs)
        mean, log_variance = wide(self.mean(features)), wide(self.log_variance(features))
        terms, deviation = self.beta * kl_normal(mean, log_variance), (log_variance / 2).exp()
        if self.training:
            drawn = self.decoder(mean + deviation * torch.randn_like(mean))
            return Objective(drawn, terms, summed=True)
        noise = self.noise[torch.arange(mean.shape[0], device=mean.device) % DRAWN]
        return Objective(self.decoder(mean), terms, summed=True, sampled=self.decoder(mean + deviation * noise))

    def codes(self, inputs: Tensor) -> Tensor:
        """The means of the codes of inputs (B, ...): (B, J)."""
        return wide(self.mean(self.encoder(inputs)))

    def samples(self, count: int) -> Tensor:
        """Outputs (count, ...) for codes from N(0, 1), the same ones each time."""
        outputs: Tensor = self.decoder(self.noise[:count])
        return outputs
