"""Activations and norms: one contract test over each catalogue, and references in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dltrain.config.section import field_docs
from dltrain.layers import Activation, Norm


@pytest.mark.parametrize("name", Activation.all_names())
def test_activation_contract(name: str) -> None:
    choice = Activation.parse(name)
    assert isinstance(choice, Activation) and choice.summary()
    assert choice.fact or choice.variants, f"{type(choice).__name__}.fact says nothing"
    sizes = [(2, 3, 4, 4)] if choice.needs_maps else [(2, 3), (2, 3, 4, 4)]
    for options, fact in (({}, choice.fact), *choice.variants):
        layer = Activation.parse({"name": name, **options}).build(3).double().eval()  # type: ignore[attr-defined]
        for point, value in fact.items():
            for size in sizes:
                out = layer(torch.full(size, point, dtype=torch.float64))
                torch.testing.assert_close(out, torch.full(size, value, dtype=torch.float64), rtol=0, atol=1e-5)
    learned = sum(p.numel() for p in choice.build(64).parameters())
    assert {64: learned} == (choice.parameters or {64: 0}), f"{type(choice).__name__}.parameters"

    layer = choice.build(3).double().eval()
    vectors = torch.randn(2, 3, dtype=torch.float64)
    assert choice.build_for_vectors(3).double().eval()(vectors).shape == vectors.shape
    inputs = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    kept = inputs.detach().clone()
    assert torch.autograd.gradcheck(layer, inputs)
    state = {key: tensor.clone() for key, tensor in layer.state_dict().items()}
    torch.testing.assert_close(layer(inputs.to(memory_format=torch.channels_last)), layer(inputs))
    assert all(torch.equal(state[key], tensor) for key, tensor in layer.state_dict().items()), "evaluation changes it"
    other = choice.build(3).double().eval()
    other.load_state_dict(state)
    assert torch.equal(other(inputs), layer(inputs)), "its state is not all of it"

    layer.train()(inputs).sum().backward()
    assert torch.equal(inputs.detach(), kept), "it writes into its input"
    assert inputs.grad is not None and bool(inputs.grad.any()) == choice.trains
    for dtype in (torch.float32, torch.bfloat16):
        layer = choice.build(3).to(dtype)
        extremes = torch.tensor([0.0, 50.0, -50.0], dtype=dtype).repeat(2, 3, 4, 1).requires_grad_()
        out = layer(extremes)
        out.sum().backward()
        assert out.dtype == dtype and out.isfinite().all()
        assert all(t.grad is not None and t.grad.isfinite().all() for t in (extremes, *layer.parameters()))


@pytest.mark.parametrize("name", Norm.all_names())
def test_norm_contract(name: str) -> None:
    choice = Norm.parse(name)
    assert isinstance(choice, Norm) and choice.summary()
    assert choice.fact is not None, f"{type(choice).__name__}.fact says nothing"
    layer = choice.build(48).double()
    ramp = torch.arange(2 * 48 * 4, dtype=torch.float64).div(100).reshape(2, 48, 2, 2)
    assert layer(ramp)[-1, -1, -1, -1].item() == pytest.approx(choice.fact, abs=1e-5)
    inputs = torch.randn(2, 48, 3, 3, requires_grad=True)
    out = layer.float()(inputs.to(memory_format=torch.channels_last))
    assert out.shape == inputs.shape
    out.square().sum().backward()
    assert inputs.grad is not None and inputs.grad.isfinite().all()
    biased = any("bias" in key for key, _ in layer.named_parameters())
    assert biased == choice.shifts
    choice.build(48).load_state_dict(layer.state_dict())


@pytest.mark.parametrize(
    ("value", "axes"),
    [
        ("batch_norm", (0, 2, 3)),
        ("layer_norm", (1, 2, 3)),
        ({"name": "layer_norm", "over": "channels"}, (1,)),
        ("instance_norm", (2, 3)),
        ({"name": "group_norm", "groups": 1}, (1, 2, 3)),
        ({"name": "group_norm", "groups": 7}, (2, 3)),
    ],
    ids=str,
)
def test_norm_statistics(value: Any, axes: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).normal(2, 3, (4, 7, 5, 5))
    reference = (images - images.mean(axes, keepdims=True)) / np.sqrt(images.var(axes, keepdims=True) + 1e-5)
    layer = Norm.parse(value).build(7).double()  # type: ignore[attr-defined]
    np.testing.assert_allclose(layer(torch.from_numpy(images)).detach().numpy(), reference, atol=1e-9)


def test_local_response_norm_is_alexnets() -> None:
    out = Norm.parse("local_response_norm").build(5)(torch.ones(1, 5, 1, 1)).flatten()  # type: ignore[attr-defined]
    assert out[0].item() == pytest.approx(0.594537, abs=1e-6) and out[2].item() == pytest.approx(0.594492, abs=1e-6)


@pytest.mark.parametrize("kind", [Activation, Norm])
def test_every_option_is_documented(kind: Any) -> None:
    for entry in kind.catalogue:
        missing = set(entry.model_fields) - set(field_docs(entry)) - {"name"}
        assert not missing, f"{entry.__name__}: {missing}"
