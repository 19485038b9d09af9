"""The contracts of what networks are made of: activations, norms, attention and initial weights."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from dltrain.layers import Activation, Attention, Initialization, Norm
from dltrain.testing.contract import Contract


def normal(*size: int, seed: int = 0) -> Tensor:
    """float64 from N(0, 1)."""
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def count(layer: nn.Module) -> int:
    """How many parameters it has."""
    return sum(parameter.numel() for parameter in layer.parameters())


def perturb(layer: nn.Module) -> None:
    """Move every parameter from its start, where gains of one and offsets of zero would hide mistakes."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.linspace(-0.3, 0.4, parameter.numel()).view_as(parameter))


def assert_unchanged(layer: nn.Module, state: dict[str, Tensor]) -> None:
    """That evaluation has left the state of a layer alone."""
    assert all(torch.equal(state[key], tensor) for key, tensor in layer.state_dict().items()), "evaluation changes it"


def state_of(layer: nn.Module) -> dict[str, Tensor]:
    """A copy of its state."""
    return {key: tensor.clone() for key, tensor in layer.state_dict().items()}


class ActivationContract(Contract):
    """An activation gives the values of its facts, has gradients, and takes vectors, maps and all number types."""

    kind = Activation

    def test_values_and_parameters_are_those_of_its_facts(self, name: str) -> None:
        choice = self.parse(name)
        assert choice.fact or choice.variants, f"{type(choice).__name__}.fact says nothing"
        sizes = [(2, 3, 4, 4)] if choice.needs_maps else [(2, 3), (2, 3, 4, 4)]
        for options, fact in (({}, choice.fact), *choice.variants):
            layer = self.parse(name, **options).build(3).double().eval()
            for point, value in fact.items():
                for size in sizes:
                    out = layer(torch.full(size, point, dtype=torch.float64))
                    torch.testing.assert_close(out, torch.full(size, value, dtype=torch.float64), rtol=0, atol=1e-5)
        assert {64: count(choice.build(64))} == (choice.parameters or {64: 0}), f"{type(choice).__name__}.parameters"

    def test_gradients_formats_and_state(self, name: str) -> None:
        choice = self.parse(name)
        layer = choice.build(3).double().eval()
        vectors = torch.randn(2, 3, dtype=torch.float64)
        assert choice.build_for_vectors(3).double().eval()(vectors).shape == vectors.shape
        inputs = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
        kept = inputs.detach().clone()
        assert torch.autograd.gradcheck(layer, inputs)
        state = state_of(layer)
        torch.testing.assert_close(layer(inputs.to(memory_format=torch.channels_last)), layer(inputs))
        assert_unchanged(layer, state)
        other = choice.build(3).double().eval()
        other.load_state_dict(state)
        assert torch.equal(other(inputs), layer(inputs)), "its state is not all of it"
        layer.train()(inputs).sum().backward()
        assert torch.equal(inputs.detach(), kept), "it writes into its input"
        assert inputs.grad is not None and bool(inputs.grad.any()) == choice.trains

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_large_values_stay_finite(self, name: str, dtype: torch.dtype) -> None:
        layer = self.parse(name).build(3).to(dtype)
        extremes = torch.tensor([0.0, 50.0, -50.0], dtype=dtype).repeat(2, 3, 4, 1).requires_grad_()
        out = layer(extremes)
        out.sum().backward()
        assert out.dtype == dtype and out.isfinite().all()
        assert all(t.grad is not None and t.grad.isfinite().all() for t in (extremes, *layer.parameters()))


class NormContract(Contract):
    """A norm has the statistics of its facts, right gradients, a complete state, and works in bfloat16."""

    kind = Norm
    without_gradcheck: ClassVar[Collection[str]] = ()
    """Choices, as texts, some of whose statistics take no gradient, so that differences show another one."""

    def build(self, choice: Any, channels: int = 6, **options: Any) -> nn.Module:
        layer: nn.Module = self.parse(choice, **options).build(channels).double()
        return layer

    def test_value_is_that_of_its_fact(self, name: str) -> None:
        choice = self.parse(name)
        assert choice.fact is not None, f"{type(choice).__name__}.fact says nothing"
        layer = self.build(name, 48)
        ramp = torch.arange(2 * 48 * 4, dtype=torch.float64).div(100).reshape(2, 48, 2, 2)
        assert layer(ramp)[-1, -1, -1, -1].item() == pytest.approx(choice.fact, abs=1e-5)
        inputs = torch.randn(2, 48, 3, 3, requires_grad=True)
        out = layer.float()(inputs.to(memory_format=torch.channels_last))
        assert out.shape == inputs.shape
        out.square().sum().backward()
        assert inputs.grad is not None and inputs.grad.isfinite().all()
        assert choice.shifts == any("bias" in key for key, _ in layer.named_parameters())
        choice.build(48).load_state_dict(layer.state_dict())

    def test_parameters_and_what_leaves_it_unchanged(self, name: str) -> None:
        entry = type(self.parse(name))
        assert entry.parameters is not None and entry.unchanged_by is not None, f"{entry.__name__} has no facts"
        options = {"epsilon": 1e-12} if "epsilon" in entry.model_fields else {}
        per_channel, beside = entry.parameters
        assert count(self.build(name, 64, **options)) == per_channel * 64 + beside
        images, others = (3 * normal(n, 64, 3, 5, seed=seed) + 2 for n, seed in ((4, 0), (2, 1)))
        expected = self.build(name, 64, **options)(images)
        changed = {"scale": images * 7, "shift": images + 5, "batch": torch.cat([images[:1], others])}
        for change, inputs in changed.items():
            out = self.build(name, 64, **options)(inputs)
            same = torch.allclose(out[:1], expected[:1], rtol=0, atol=1e-6)
            assert same == (change in entry.unchanged_by), f"{name}: {change}"

    def test_gradients_formats_and_state(self, choice: Any) -> None:
        images = 3 * normal(3, 6, 2, 2) + 2
        layer = self.build(choice)
        perturb(layer)
        names = [name for name, _ in layer.named_parameters()]

        def from_scratch(inputs: Tensor, *parameters: Tensor) -> Tensor:
            fresh = self.build(choice)  # running averages of one call must not change the next
            out: Tensor = torch.func.functional_call(fresh, dict(zip(names, parameters, strict=True)), inputs)
            return out

        inputs = (images.requires_grad_(), *(p.detach().clone().requires_grad_() for p in layer.parameters()))
        if str(choice) not in self.without_gradcheck:
            assert torch.autograd.gradcheck(from_scratch, inputs)

        kept = images.detach().clone()
        for _ in range(3):
            out = layer(images)
        assert torch.equal(images, kept), "it writes into its input"
        layer.eval()
        state, evaluated = state_of(layer), layer(images)
        torch.testing.assert_close(layer(images), evaluated, rtol=0, atol=0)
        assert_unchanged(layer, state)
        other = self.build(choice).eval()
        other.load_state_dict(state)
        assert torch.equal(other(images), evaluated), "its state is not all of it"
        layer.train()
        out = layer(images.to(memory_format=torch.channels_last))
        layer.load_state_dict(state)
        torch.testing.assert_close(out, layer(images), rtol=1e-9, atol=1e-9)

    def test_bfloat16_is_near_float32(self, choice: Any) -> None:
        images = (3 * normal(3, 6, 4, 4) + 2).float()
        for training in (True, False):
            exact = self.build(choice).float().train(training)(images)
            with torch.autocast("cpu", torch.bfloat16):  # a convolution under autocast gives bfloat16
                mixed = self.build(choice).float().train(training)(images.bfloat16())
            assert mixed.isfinite().all()
            torch.testing.assert_close(mixed.float(), exact, rtol=0.02, atol=0.06)
            whole = self.build(choice).bfloat16().train(training)(images.bfloat16())
            assert whole.dtype == torch.bfloat16
            torch.testing.assert_close(whole.float(), exact, rtol=0.02, atol=0.06)


class AttentionContract(Contract):
    """A block of attention keeps sizes and bounds, has right gradients and a complete state, and works in bfloat16."""

    kind = Attention

    def build(self, choice: Any, channels: int = 32) -> nn.Module:
        block: nn.Module = self.parse(choice).build(channels).double()
        return block

    def test_it_has_its_facts(self, name: str) -> None:
        entry = type(self.parse(name))
        assert entry.source, f"{entry.__name__}.source says nothing"
        assert entry.parameters, f"{entry.__name__}.parameters says nothing"
        assert {channels: count(self.build(name, channels)) for channels in entry.parameters} == entry.parameters
        images, layer = normal(3, 32, 5, 4), self.build(name)
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

    def test_it_has_no_activation_to_exchange(self, name: str) -> None:
        assert "torch.nn.modules.activation" not in {type(part).__module__ for part in self.build(name).modules()}

    def test_gradients_formats_types_and_state(self, choice: Any) -> None:
        small, layer = normal(2, 6, 3, 3).requires_grad_(), self.build(choice, 6)
        kept = small.detach().clone()
        assert torch.autograd.gradcheck(layer, (small,))
        assert torch.equal(small, kept), "it writes into its input"
        layer(small).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())

        images, layer = normal(4, 32, 5, 6), self.build(choice)
        layer(images)  # a norm inside keeps averages
        layer.eval()
        expected = layer(images)
        assert expected.shape == images.shape
        torch.testing.assert_close(layer(images[:1]), expected[:1])
        other = self.build(choice).eval()
        other.load_state_dict(layer.state_dict())
        assert torch.equal(other(images), expected), "its state is not all of it"
        torch.testing.assert_close(layer(images.to(memory_format=torch.channels_last)), expected)
        exact = layer.float()(images.float())
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(layer(images.float()), exact, rtol=0.03, atol=0.03)
        whole = layer.bfloat16()(images.bfloat16())
        assert whole.dtype == torch.bfloat16
        torch.testing.assert_close(whole.float(), exact, rtol=0.03, atol=0.03)
        assert layer.train()(images[:, :, :1, :1].bfloat16()).isfinite().all(), "maps of one pixel"
        for channels in (1, 3):
            assert self.build(choice, channels)(normal(2, channels, 3, 3)).shape == (2, channels, 3, 3)


class InitializationContract(Contract):
    """Initial weights have the size of their facts, and are a function of the seed."""

    kind = Initialization
    fixed: ClassVar[Collection[str]] = ()
    """Those that draw nothing for the weight of a fact: the same weights for every seed."""

    @classmethod
    def weights(cls, choice: Any, shape: tuple[int, ...], seed: int = 0) -> Tensor:
        """The initial weight of this shape, in a network of one layer."""
        generator = torch.Generator().manual_seed(7)
        if len(shape) == 2:
            layer: nn.Linear | nn.Conv2d = nn.Linear(shape[1], shape[0])
            network, images = nn.Sequential(nn.Flatten(), layer), torch.randn(64, shape[1], 1, 1, generator=generator)
        else:
            layer = nn.Conv2d(shape[1], shape[0], shape[2])
            network, images = nn.Sequential(layer), torch.randn(8, shape[1], 6, 6, generator=generator)
        cls.parse(choice).apply(network, seed, images)
        return layer.weight.detach()

    def test_it_has_its_facts(self, name: str) -> None:
        entry = self.parse(name)
        assert entry.fact, f"{type(entry).__name__}.fact says nothing"
        for shape, expected in entry.fact.items():
            values = self.weights(name, shape)
            assert values.square().mean().sqrt().item() == pytest.approx(expected, rel=0.03)
            assert torch.equal(values, self.weights(name, shape)), "the same seed gives the same weights"
            assert torch.equal(values, self.weights(name, shape, seed=1)) == (name in self.fixed)
