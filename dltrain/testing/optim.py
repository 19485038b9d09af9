"""The contracts of what changes weights: optimizers, schedules, penalties and estimates of the gradient."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dltrain.optim import Gradient, Optimizer, Penalty, Schedule
from dltrain.optim.impl.groups import parameter_groups
from dltrain.optim.impl.penalties import Penalties
from dltrain.optim.optimizers.forms import form
from dltrain.testing.contract import Contract


def build(section: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """Its optimizer for all parameters of a network, on the CPU."""
    return section.build(parameter_groups(model, section), torch.device("cpu"))


def problem(dimension: int = 6) -> tuple[nn.Linear, Tensor, Tensor]:
    """A logistic regression that can be learned: the model, inputs (64, D) and classes (64,)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, dimension, generator=generator)
    y = (x @ torch.randn(dimension, generator=generator) > 0).long()
    model = nn.Linear(dimension, 2)
    with torch.no_grad():
        model.weight.normal_(0, 0.1, generator=generator)
        model.bias.zero_()
    return model, x, y


def train(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, steps: int) -> float:
    """The loss after so many steps."""
    for _ in range(steps):

        def loss() -> float:
            optimizer.zero_grad()
            value = nn.functional.cross_entropy(model(x), y)
            value.backward()
            return float(value.detach())

        start = None if isinstance(optimizer, torch.optim.LBFGS) else loss()
        optimizer.step(loss if start is None else None)
    return float(nn.functional.cross_entropy(model(x), y).detach())


class Reads(TorchDispatchMode):
    """Collects the tensors that are read on the host; an optimizer's count of steps lies there already."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.tensors.append(args[0])
        return func(*args, **(kwargs or {}))


class OptimizerContract(Contract):
    """An optimizer learns, obeys its options, goes on from a checkpoint bit for bit, and does not wait in a step."""

    kind = Optimizer
    unseen: ClassVar[Mapping[str, Collection[str]]] = {}
    """By name, options that do not stand in the torch optimizer's `defaults` under their own names."""

    def sections(self, name: str) -> list[Any]:
        """The entry with its defaults, and its variants."""
        return [self.parse(name), *(s for s in map(self.parse, self.variants) if s.name == name)]

    def test_first_step_is_the_formula(self, name: str) -> None:
        for section in self.sections(name):
            if section.needs_closure:
                continue
            for w, g in ((1.5, 0.4), (-0.7, 3.0)):
                model = nn.Linear(1, 1, bias=False).double()
                nn.init.constant_(model.weight, w)
                optimizer = build(section, model)
                model.weight.grad = torch.full_like(model.weight, g)
                optimizer.step()
                expected = section.first_step(w, g)
                assert expected is None or model.weight.item() == pytest.approx(expected, rel=1e-9), section

    def test_lowers_a_logistic_loss(self, name: str) -> None:
        for variant in self.sections(name):
            section = variant.model_copy(update={"lr": variant.trial_lr})
            model, x, y = problem()
            before = train(model, build(section, model), x, y, 0)
            assert train(model, build(section, model), x, y, 40) < 0.9 * before, section

    def test_continues_exactly_from_a_safe_checkpoint(self, name: str) -> None:
        for section in self.sections(name):
            model, x, y = problem()
            optimizer = build(section, model)
            train(model, optimizer, x, y, 3)
            file = io.BytesIO()
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
            train(model, optimizer, x, y, 3)
            file.seek(0)
            state = torch.load(file, weights_only=True)
            again = nn.Linear(6, 2)
            again.load_state_dict(state["model"])
            continued = build(section, again)
            continued.load_state_dict(state["optimizer"])
            assert form(continued) == form(optimizer)
            train(again, continued, x, y, 3)
            assert torch.equal(again.weight, model.weight), section
            assert torch.equal(again.bias, model.bias), section

    def test_every_option_reaches_the_optimizer(self, name: str) -> None:
        without = {*Optimizer.model_fields} - {"lr", "weight_decay"} | {*self.unseen.get(name, ())}
        for section in self.sections(name):
            defaults = build(section, nn.Linear(2, 2)).defaults
            options = section.model_dump(exclude=without)
            found = {key: list(v) if isinstance(v := defaults.get(key), tuple) else v for key in options}
            assert found == options

    def test_unknown_option_is_an_error(self, name: str) -> None:
        with pytest.raises(ValidationError, match="momentun"):
            self.parse(name, momentun=0.9)

    @pytest.mark.parametrize("wrong", [{"lr": 0}, {"lr": -1.0}, {"lr": "0.1"}, {"weight_decay": -0.1}, {"lr": True}])
    def test_values_out_of_range_are_errors(self, name: str, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            self.parse(name, **wrong)

    def test_a_step_never_waits_for_the_device(self, name: str) -> None:
        section = self.parse(name)
        model, x, y = problem()
        optimizer = build(section, model)
        train(model, optimizer, x, y, 1)
        nn.functional.cross_entropy(model(x), y).backward()
        with Reads() as reads:
            train(model, optimizer, x, y, 1) if section.needs_closure else optimizer.step()
        counters = [
            value.data_ptr() for state in optimizer.state.values() for key, value in state.items()
            if key in ("step", "mu_product") and isinstance(value, torch.Tensor)
        ]  # fmt: skip
        waits = any(tensor.data_ptr() not in counters for tensor in reads.tensors)
        assert section.waits == waits, f"{type(section).__name__}.waits must be {waits}"

    def test_a_state_saved_in_another_memory_format_is_laid_out_anew(self, name: str) -> None:
        """Fused kernels would mix up a channels_last momentum beside a contiguous weight."""

        def steps(model: nn.Conv2d, optimizer: torch.optim.Optimizer, start: int) -> None:
            for step in range(start, start + 2):
                torch.manual_seed(step)
                images = torch.randn(4, 3, 5, 5)

                def loss(images: Tensor = images) -> float:
                    optimizer.zero_grad()
                    value = model(images).square().mean()
                    value.backward()
                    return float(value.detach())

                if section.needs_closure:
                    optimizer.step(loss)
                    continue
                for parameter in model.parameters():
                    parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape))
                optimizer.step()

        plain = self.parse(name)
        section = self.parse(name, momentum=0.9) if getattr(plain, "momentum", None) == 0 else plain
        torch.manual_seed(0)
        model = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
        optimizer = build(section, model)
        steps(model, optimizer, 0)
        other = nn.Conv2d(3, 8, 3)
        other.load_state_dict(model.state_dict())
        continued = build(section, other)
        continued.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        steps(model, optimizer, 2)
        steps(other, continued, 2)
        assert other.weight.is_contiguous() and not model.weight.is_contiguous()
        torch.testing.assert_close(other.weight, model.weight)


class ScheduleContract(Contract):
    """A schedule is a pure function of the step with its peak at `lr`, also after a warm-up, and can be compressed.

    The trainings have 120 steps in 12 epochs, and each entry the options of its `example`.
    """

    kind = Schedule
    rises_again: ClassVar[Collection[str]] = ()
    """Those whose learning rate does not only fall after its peak."""
    own_warmup: ClassVar[Collection[str]] = ()
    """Those that take no `warmup`, as they have one of their own."""
    steps, steps_per_epoch = 120, 10

    @classmethod
    def rates(cls, section: Any, lr: float = 1.0, steps: int = 120) -> list[float]:
        """The learning rates of all steps."""
        function = section.build(lr, steps, cls.steps_per_epoch)
        return [function(step) for step in range(steps)]

    def test_it_is_a_pure_function_with_its_peak_at_lr(self, name: str) -> None:
        section = self.parse(name)
        found = self.rates(section, lr=0.3)
        assert found == self.rates(section, lr=0.3), "a pure function of the step"
        assert max(found) == pytest.approx(0.3), "lr is the peak"
        assert all(0 <= lr <= 0.3 + 1e-12 and isinstance(lr, float) for lr in found)
        peak = found.index(max(found))
        if name not in self.rises_again:
            assert all(b <= a + 1e-12 for a, b in zip(found[peak:], found[peak + 1 :], strict=False)), "falls after it"
        assert section.remarks(self.steps, self.steps_per_epoch) == []
        short = section.compressed(0.5)
        assert short.name == name
        half = self.rates(short, lr=0.3, steps=self.steps // 2)
        assert half == pytest.approx(found[::2], abs=0.015), "the same shape in half the time"

    def test_rates_are_those_of_its_fact(self, name: str) -> None:
        section = self.parse(name)
        function = section.build(1.0, self.steps, self.steps_per_epoch)
        assert section.fact, f"{type(section).__name__}.fact says nothing"
        assert {step: function(step) for step in section.fact} == pytest.approx(section.fact, rel=1e-6, abs=1e-9)

    def test_warmup_reaches_lr_at_its_end_and_goes_on_from_there(self, name: str) -> None:
        if name in self.own_warmup:
            with pytest.raises(ValidationError, match="warm-up"):
                self.parse(name, warmup={"epochs": 1.5})
            return
        found = self.rates(self.parse(name, warmup={"epochs": 1.5, "start": 0.1}), lr=2.0)
        assert found[:16] == pytest.approx([0.2 + 1.8 * t / 15 for t in range(16)])
        assert found[15] == 2.0 == max(found)

    @pytest.mark.parametrize("steps", [1, 2, 3])
    def test_fits_into_very_few_steps(self, name: str, steps: int) -> None:
        section = self.parse(name, **({} if name in self.own_warmup else {"warmup": {"epochs": 2.0}}))
        short = section.compressed(steps / self.steps)
        found = self.rates(short, steps=steps)
        assert all(math.isfinite(lr) and 0 <= lr <= 1 for lr in found) and max(found) > 0
        again = Schedule.parse(short.model_dump())  # the resolved experiment is read back
        assert self.rates(again, steps=steps) == found


class PenaltyContract(Contract):
    """A penalty has the value of its fact, a right gradient, and leaves exempt parameters alone."""

    kind = Penalty

    def test_it_has_its_fact(self, name: str) -> None:
        section = self.parse(name)
        model = nn.Linear(2, 1).double()
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[3.0, -4.0]]))
            model.bias.fill_(100.0)  # exempt
        penalties = Penalties(model, [section])
        value = penalties.loss()
        penalties.bound()
        found = model.weight.norm() if value is None else value
        assert section.fact is not None, f"{type(section).__name__}.fact says nothing"
        assert found.item() == pytest.approx(section.fact, rel=1e-6)
        assert model.bias.item() == 100.0
        if value is not None:
            value.backward()
            assert model.weight.grad is not None and model.bias.grad is None
            assert torch.autograd.gradcheck(section.value, torch.tensor([[3.0, -4.0, 0.5]]).double().requires_grad_())


class GradientContract(Contract):
    """An estimate is right on average, as long as its `growth` says, a function of its seed, and leaves weights as they
    were."""

    kind = Gradient

    def estimated(
        self, name: str, weight: Tensor, loss: Callable[[Tensor], Tensor], *seeds: int
    ) -> tuple[Tensor, list[Tensor]]:
        """The estimate of the gradient of `loss` at `weight`, and the weights at which the loss was evaluated."""
        seen = []

        def evaluate(weights: Mapping[str, Tensor] | None = None) -> Tensor:
            w = weight if weights is None else weights["w"]
            seen.append(w.detach().clone())
            return loss(w)[None]

        found = self.parse(name).build().gradients({"w": weight}, evaluate, seeds, lambda slope: slope)
        return found["w"], seen

    def test_of_a_linear_loss_it_is_its_slope_along_a_direction_times_that(self, name: str) -> None:
        a, start = torch.randn(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        w = start.clone()
        found, seen = self.estimated(name, w, lambda w: a @ w, 5)
        torch.testing.assert_close(w, start, rtol=0, atol=1e-15)
        z = found / (a @ found).sqrt()  # of (a z) z the slope is (a z)^2
        torch.testing.assert_close(found, (a @ z) * z, rtol=1e-6, atol=1e-6)
        for moved in seen:
            along = (moved - start) @ z / (z @ z)
            torch.testing.assert_close(moved - start, along * z, rtol=1e-6, atol=1e-9)
        again, other = (self.estimated(name, w, lambda w: a @ w, seed)[0] for seed in (5, 6))
        torch.testing.assert_close(again, found, rtol=1e-9, atol=1e-9)
        assert not torch.allclose(other, found)

    def test_its_mean_is_the_gradient_and_its_squared_length_grows_with_the_weights(self, name: str) -> None:
        n, count = 4, 3000
        w, g = torch.zeros(n, dtype=torch.float64), torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)

        def loss(w: Tensor) -> Tensor:
            return (w * g).sum() + (w * w).sum()  # whose gradient at 0 is g

        found = torch.stack([self.estimated(name, w, loss, seed)[0] for seed in range(count)])
        length = float(g @ g)
        torch.testing.assert_close(found.mean(0), g, rtol=0, atol=4 * (n * length / count) ** 0.5)
        growth = self.parse(name).growth(n)
        assert float((found**2).sum(1).mean()) == pytest.approx(growth * length, rel=0.12)
        average = self.estimated(name, w, loss, *range(50))[0]
        torch.testing.assert_close(average, found[:50].mean(0), rtol=1e-6, atol=1e-6)
