"""Attention blocks: the facts of each entry, references of libraries, gradients, types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dltrain.config.section import field_docs
from dltrain.layers import Attention

VARIANTS: list[Any] = [
    *Attention.all_names(),
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


@pytest.mark.parametrize("name", Attention.all_names())
def test_attention_has_its_facts(name: str) -> None:
    entry = Attention.lookup(name)
    assert entry is not None and issubclass(entry, Attention) and entry.summary() and entry.source
    assert entry.parameters, f"{entry.__name__}.parameters says nothing"
    for channels, expected in entry.parameters.items():
        assert sum(p.numel() for p in build(name, channels).parameters()) == expected

    images = normal(3, 32, 5, 4)
    layer = build(name)
    assert entry.bound is not None and (layer(images).abs() <= images.abs() * entry.bound).all()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    shuffled = images.flatten(2)[:, :, order].view_as(images)
    same = torch.allclose(layer(shuffled), layer(images).flatten(2)[:, :, order].view_as(images))
    assert same == entry.blind
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    assert entry.at_zero is not None
    torch.testing.assert_close(layer(images), images * entry.at_zero)


@pytest.mark.parametrize("value", VARIANTS, ids=str)
def test_attention_contract(value: Any) -> None:
    small, layer = normal(2, 6, 3, 3).requires_grad_(), build(value, 6)
    kept = small.detach().clone()
    assert torch.autograd.gradcheck(layer, (small,))
    assert torch.equal(small, kept), "it writes into its input"
    layer(small).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())

    images = normal(4, 32, 5, 6)
    layer = build(value)
    layer(images)  # the norm of cbam keeps averages
    layer.eval()
    expected = layer(images)
    assert expected.shape == images.shape
    torch.testing.assert_close(layer(images[:1]), expected[:1])
    other = build(value).eval()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(images), expected)
    torch.testing.assert_close(layer(images.to(memory_format=torch.channels_last)), expected)
    exact = layer.float()(images.float())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(images.float()), exact, rtol=0.03, atol=0.03)
    whole = layer.bfloat16()(images.bfloat16())
    assert whole.dtype == torch.bfloat16
    torch.testing.assert_close(whole.float(), exact, rtol=0.03, atol=0.03)
    assert layer.train()(images[:, :, :1, :1].bfloat16()).isfinite().all(), "maps of one pixel"


@pytest.mark.parametrize("value", VARIANTS, ids=str)
def test_attention_takes_few_channels(value: Any) -> None:
    for channels in (1, 3):
        assert build(value, channels)(normal(2, channels, 3, 3)).shape == (2, channels, 3, 3)


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


def test_attention_has_no_activation_to_replace() -> None:
    for name in Attention.all_names():
        kinds = {type(module).__module__ for module in build(name).modules()}
        assert "torch.nn.modules.activation" not in kinds


def test_only_the_norm_of_cbam_counts_as_one() -> None:
    from dltrain.optim.impl.roles import exempt

    layer = build("cbam")
    assert exempt(layer, ["norm"]) == {"norm.weight", "norm.bias"}


@pytest.mark.parametrize("value", [{"name": "cbam", "kernel": 4}, {"name": "eca", "kernel": 2}])
def test_even_kernels_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="`kernel` must be odd"):
        Attention.parse(value)


def test_every_option_is_documented() -> None:
    for entry in Attention.catalogue:
        assert not set(entry.model_fields) - set(field_docs(entry)) - {"name"}
