"""The restricted Boltzmann machine: free energy, contrastive divergence, pseudo-likelihood and chains."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from dltrain import Experiment
from dltrain.config import ConfigError
from dltrain.data.types import Vector
from dltrain.models import Model
from dltrain.models.impl.boltzmann import BoltzmannMachine
from dltrain.tasks.outputs import LikeInput


def machine(size: int = 5, **options: Any) -> BoltzmannMachine:
    """One of 3 hidden units, with weights that matter, in float64."""
    section = Model.parse({"name": "restricted_boltzmann_machine", "hidden": 3, **options})
    assert isinstance(section, Model)
    torch.manual_seed(0)
    network = section.make(Vector(size), LikeInput()).double()
    assert isinstance(network, BoltzmannMachine)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    return network


def binary(size: int) -> Tensor:
    """All vectors of ones and zeros (2^n, n)."""
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=size)), dtype=torch.float64)


def energies(network: BoltzmannMachine, v: Tensor, h: Tensor) -> Tensor:
    """E(v, h), (B, 2^J)."""
    a, b, weight = network.visible_bias, network.encoder[1].bias, network.encoder[1].weight
    assert isinstance(b, Tensor) and isinstance(weight, Tensor)
    own = (v - a).square().sum(1) / 2 if network.gaussian else -v @ a
    return own[:, None] - h @ b - v @ weight.T @ h.T


@pytest.mark.parametrize("visible", ["binary", "gaussian"])
def test_free_energy_sums_over_all_hidden_units(visible: str) -> None:
    network = machine(visible=visible)
    v = binary(5) if visible == "binary" else torch.randn(7, 5, dtype=torch.float64)
    expected = -(-energies(network, v, binary(3))).logsumexp(1)
    torch.testing.assert_close(network.free_energy(v), expected)


def test_gradient_is_contrastive_divergence() -> None:
    network, v = machine(steps=2), torch.rand(6, 5, dtype=torch.float64).round()
    torch.manual_seed(3)
    network(v).terms.mean().backward()
    torch.manual_seed(3)
    moved = network.gibbs(v, 2)
    assert not torch.equal(v, moved)
    one, other = (network.expected_hidden(x).T @ x for x in (v, moved))
    gradient = network.encoder[1].weight.grad
    torch.testing.assert_close(gradient, -(one - other) / 6)
    torch.testing.assert_close(network.visible_bias.grad, -(v - moved).mean(0))


def test_pseudo_likelihood_is_that_of_each_unit_given_the_others() -> None:
    network, v = machine(), binary(5)
    expected = torch.zeros(len(v), dtype=torch.float64)
    for unit in range(5):
        other = v.clone()
        other[:, unit] = 1 - v[:, unit]
        own, flipped = -network.free_energy(v), -network.free_energy(other)
        expected += own - torch.logaddexp(own, flipped)
    torch.testing.assert_close(network.pseudo_likelihood(v), expected)
    torch.testing.assert_close(network.eval()(v).instead, -expected)
    large = machine(100).pseudo_likelihood(torch.zeros(1, 100, dtype=torch.float64))
    assert large.shape == (1,) and large < 0, "from 16 units of 100"


def test_gibbs_sampling_reaches_the_distribution_of_the_energy() -> None:
    network, v = machine(), binary(5)
    torch.manual_seed(0)
    ends = network.gibbs(torch.zeros(20_000, 5, dtype=torch.float64), 30)
    found = torch.bincount((ends @ torch.tensor([16.0, 8, 4, 2, 1], dtype=torch.float64)).long(), minlength=32)
    expected = (-network.free_energy(v)).softmax(0)
    assert (found / 20_000 - expected).abs().max() < 0.015


def test_chains_go_on_when_a_step_is_done() -> None:
    network, v = machine(chains=4), torch.zeros(6, 5, dtype=torch.float64)
    start = network.chains.clone()
    for _ in range(2):  # two parts of a batch, or two passes of a step
        torch.manual_seed(0)
        terms = network(v).terms
        assert torch.equal(network.chains, start)
    expected = network.free_energy(v) - network.free_energy(network.moved).mean()
    torch.testing.assert_close(terms, expected)
    network.step_done()
    assert torch.equal(network.chains, network.moved) and not torch.equal(network.chains, start)
    assert "chains" in network.state_dict() and "moved" not in network.state_dict()
    assert network.samples(3).shape == (3, 5)
    network.eval()(v)
    network.begin([torch.rand(50, 5, dtype=torch.float64)])
    assert set(network.chains.unique().tolist()) == {0, 1} and torch.equal(network.chains, network.moved)


def test_gaussian_units_are_measured_by_their_reconstruction() -> None:
    network, v = machine(visible="gaussian").eval(), torch.randn(4, 5, dtype=torch.float64)
    found = network(v)
    torch.testing.assert_close(found.instead, (found.outputs - v).square().sum(1) / 2)
    assert torch.equal(network(v).outputs, found.outputs)
    assert torch.equal(network.float().samples(2), network.samples(2)), "from the same noise"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.scaling=standardize", "takes inputs in 0..1, and `data.scaling: standardize` gives others"),
        ("loss=binary_cross_entropy", "brings what training minimises: leave `loss` out"),
    ],
)
def test_what_does_not_go_with_binary_units(change: str, message: str) -> None:
    text = "{data: {name: digits, scaling: none}, model: restricted_boltzmann_machine}"
    assert Experiment.parse(Experiment.parse(text).dump()).loss.name == "mse"
    with pytest.raises(ConfigError, match=message):
        Experiment.parse(text, overrides=[change])
