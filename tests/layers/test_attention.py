"""Attention blocks: the facts of each entry, references of libraries, gradients, types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dltrain.layers import Attention
from dltrain.testing import AttentionContract

VARIANTS: list[Any] = [
    {"name": "scse", "join": "max"},
    {"name": "cbam", "bias": True, "kernel": 3},
    {"name": "eca", "kernel": 5},
]


def build(value: Any, channels: int = 32) -> nn.Module:
    attention = Attention.parse(value)
    assert isinstance(attention, Attention)
    return attention.build(channels).double()


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class TestAttention(AttentionContract):
    names = Attention.all_names()
    variants = VARIANTS


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def test_squeeze_excitation_is_torchvisions() -> None:
    from torchvision.ops import SqueezeExcitation

    ours, theirs = build("squeeze_excitation", 64), SqueezeExcitation(64, 4).double()
    theirs.load_state_dict(ours.state_dict())
    images = normal(2, 64, 3, 3)
    torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("join", ["sum", "max"])
def test_scse_is_its_definition(join: str) -> None:
    layer = build({"name": "scse", "join": join}, 8)
    weights = {key: tensor.numpy() for key, tensor in layer.state_dict().items()}
    x = normal(2, 8, 3, 4).numpy()
    hidden = np.maximum(x.mean((2, 3)) @ weights["channel.fc1.weight"][:, :, 0, 0].T + weights["channel.fc1.bias"], 0)
    channel = sigmoid(hidden @ weights["channel.fc2.weight"][:, :, 0, 0].T + weights["channel.fc2.bias"])
    pixel = sigmoid(np.einsum("bchw,c->bhw", x, weights["pixel.weight"][0, :, 0, 0]) + weights["pixel.bias"])
    both = x * channel[:, :, None, None], x * pixel[:, None]
    expected = both[0] + both[1] if join == "sum" else np.maximum(*both)
    np.testing.assert_allclose(layer(torch.from_numpy(x)).numpy(force=True), expected, atol=1e-12)


def test_scse_of_zeros_with_max_is_half() -> None:
    layer = build({"name": "scse", "join": "max"}, 8)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    images = normal(2, 8, 3, 3)
    torch.testing.assert_close(layer(images), images / 2)


@pytest.mark.parametrize("bias", [False, True])
def test_cbam_is_timms(bias: bool) -> None:
    from timm.layers.cbam import CbamModule

    ours, theirs = build({"name": "cbam", "bias": bias}, 64), CbamModule(64, mlp_bias=bias).double()
    assert sum(p.numel() for p in ours.parameters()) == (680 if bias else 612)
    state = dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True))  # the same order, other names
    theirs.load_state_dict(state)
    images = normal(2, 64, 9, 9)
    for training in (True, True, False):
        ours.train(training), theirs.train(training)
        torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("channels", [16, 64, 128, 512, 2048])
def test_eca_is_timms(channels: int) -> None:
    from timm.layers import EcaModule

    ours, theirs = build("eca", channels), EcaModule(channels).double()
    theirs.load_state_dict(ours.state_dict())
    images = normal(2, channels, 3, 3)
    torch.testing.assert_close(ours(images), theirs(images))


def test_only_the_norm_of_cbam_counts_as_one() -> None:
    from dltrain.optim.impl.roles import exempt

    layer = build("cbam")
    assert exempt(layer, ["norm"]) == {"norm.weight", "norm.bias"}


@pytest.mark.parametrize("value", [{"name": "cbam", "kernel": 4}, {"name": "eca", "kernel": 2}])
def test_even_kernels_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="`kernel` must be odd"):
        Attention.parse(value)
