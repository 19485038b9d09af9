"""Starts of residual networks in which each block is its shortcut. Imported only to apply, or to build for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.types import ImageShape
from dltrain.layers.impl import sites
from dltrain.layers.impl.probe import Probe, native_probe


class Scalar(nn.Module):
    """x plus a learned scalar, or a learned scalar times x plus one: what Fixup has in place of norms."""

    def __init__(self, scales: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1)) if scales else None
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.bias if self.scale is None else self.scale * inputs + self.bias


def _probe(model: nn.Module, images: Tensor) -> Probe:
    return native_probe(model, ImageShape(*images.shape[1:]))


@torch.no_grad()
def zero_gains(model: nn.Module, images: Tensor) -> None:
    """Set the gains to 0 of the norms that residual branches end in. Raises ConfigError when there are none."""
    probe = _probe(model, images)
    norms = [norm for block in sites.blocks(probe) if (norm := sites.last_norm(probe, block)) is not None]
    gains = [gain for norm in norms if isinstance(gain := getattr(probe.modules[norm], "weight", None), nn.Parameter)]
    for gain in gains:
        gain.zero_()
    if not gains and len(sites.weighted(probe)) > 1:
        raise _cannot("zero_gamma", "no residual branch of the network ends in a norm with gains")


@torch.no_grad()
def scale_branches(model: nn.Module, images: Tensor) -> None:
    """Scale the weights that He's initialization drew as Fixup has them. Raises ConfigError without branches."""
    probe = _probe(model, images)
    branches = [chain for block in sites.blocks(probe) if (chain := sites.branch(probe, block))]
    layers = sites.weighted(probe)
    if not branches and len(layers) > 1:
        raise _cannot("fixup", "the network has no residual branches that are chains of layers")
    for *first, last in branches:
        for name in first:
            _weight(probe, name).mul_(len(branches) ** (-1 / (2 * len(first))))
        _weight(probe, last).zero_()
    _weight(probe, layers[-1]).zero_()


def _weight(probe: Probe, name: str) -> Tensor:
    weight = probe.modules[name].weight
    assert isinstance(weight, Tensor)
    return weight


def _cannot(name: str, reason: str) -> ConfigError:
    return ConfigError([Diagnostic(f"initialization `{name}` does not suit: {reason}")])
