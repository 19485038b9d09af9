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
    assert choice.fact, f"{type(choice).__name__}.fact says nothing"
    layer = choice.build(3).double().eval()
    for point, value in choice.fact.items():
        for size in ((2, 3), (2, 3, 4, 4)):
            out = layer(torch.full(size, point, dtype=torch.float64))
            torch.testing.assert_close(out, torch.full(size, value, dtype=torch.float64), rtol=0, atol=1e-5)
    inputs = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    kept = inputs.detach().clone()
    assert torch.autograd.gradcheck(layer, inputs)
    layer.train()(inputs).sum().backward()
    assert torch.equal(inputs.detach(), kept), "it writes into its input"
    choice.build(3).load_state_dict(layer.float().state_dict())


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
