"""Activations: the contract over the catalogue; norms: references in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dltrain.layers import Activation, Norm
from dltrain.testing import ActivationContract


class TestActivations(ActivationContract):
    names = Activation.all_names()


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
