"""Optimizers, parameter groups and averages. The contract tests run over the catalogue: a new entry is covered."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dltrain.config import ConfigError
from dltrain.optim import Average, Optimizer
from dltrain.optim.averages import EMA
from dltrain.optim.impl.averages import ExponentialAverage
from dltrain.optim.impl.groups import parameter_groups
from dltrain.optim.optimizers.adagrad import AdaGrad
from dltrain.optim.optimizers.adam import Adam
from dltrain.optim.optimizers.adamw import AdamW
from dltrain.optim.optimizers.forms import form, kernels, set_momentum
from dltrain.optim.optimizers.sgd import SGD
from dltrain.optim.schedules.one_cycle import OneCycle
from dltrain.testing import OptimizerContract
from dltrain.testing.optim import build

CPU = torch.device("cpu")
NAMES = [name for name in Optimizer.all_names() if "/" not in name]


def parse(name: str, **options: Any) -> Optimizer:
    if Optimizer.lookup(name).model_fields["lr"].is_required():  # type: ignore[union-attr]
        options = {"lr": 0.1, **options}
    entry = Optimizer.parse({"name": name, **options})
    assert isinstance(entry, Optimizer)
    return entry


MOVED: dict[str, Any] = {
    "weight_decay": 0.3, "momentum": 0.9, "nesterov": True, "dampening": 0.5, "betas": [0.8, 0.9], "eps": 1e-3,
    "amsgrad": True, "alpha": 0.9, "centered": True, "initial_accumulator_value": 0.5, "rho": 0.8,
    "momentum_decay": 0.1, "decoupled_weight_decay": True, "beta2_decay": -0.5, "d": 2.0, "ns_steps": 4,
    "adamw_scale": 0.1, "trust_coeff": 0.002, "always_adapt": False, "r": 1.0, "weight_lr_power": 1.0, "max_iter": 5,
    "history_size": 3, "line_search_fn": None,
}  # fmt: skip
"""Another value for each option."""
WITHOUT_DECAY = ("sm3", "lbfgs")


def variants(name: str) -> list[dict[str, Any]]:
    """The entry with weight decay, and with each of its options moved."""
    found: list[dict[str, Any]] = []
    fields = Optimizer.lookup(name).model_fields  # type: ignore[union-attr]
    for key in [key for key in MOVED if key in fields and not (key == "weight_decay" and name in WITHOUT_DECAY)]:
        value = [1e-20, 0.1] if (key, name) == ("eps", "adafactor") else MOVED[key]
        found.append({"name": name, **({"momentum": 0.9} if key in ("nesterov", "dampening") else {}), key: value})
    return found


class TestOptimizers(OptimizerContract):
    names = NAMES
    variants = [choice for name in NAMES for choice in variants(name)]
    unseen = {"muon": ["adamw"], **{name: ["weight_decay"] for name in WITHOUT_DECAY}}


# -- single optimizers


def test_first_step_facts() -> None:
    """COMPONENTS: adam and adagrad move by lr at first, rmsprop by lr / sqrt(1 - alpha), adamw shrinks at g = 0."""
    assert parse("adam").first_step(0.0, 5.0) == pytest.approx(-1e-3)
    assert parse("adagrad").first_step(0.0, -5.0) == pytest.approx(1e-2)
    assert parse("rmsprop").first_step(0.0, 5.0) == pytest.approx(-1e-2 / 0.1)
    assert AdamW(lr=0.1, weight_decay=0.5).first_step(2.0, 0.0) == pytest.approx(2.0 * (1 - 0.05))


def test_gradient_descent_shrinks_a_quadratic_by_one_minus_lr_curvature() -> None:
    w = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    optimizer = SGD(lr=0.1).build([{"params": [w], "weight_decay": 0.0}], CPU)
    for _ in range(5):
        w.grad = 2.5 * w.detach()
        optimizer.step()
    assert w.item() == pytest.approx(3.0 * (1 - 0.25) ** 5, rel=1e-12)


def test_defaults_are_the_usual_ones() -> None:
    assert {name: parse(name).lr for name in NAMES} == {
        "sgd": 0.1, "adam": 1e-3, "adamw": 1e-3, "rmsprop": 1e-2, "adagrad": 1e-2, "adadelta": 1.0, "adamax": 2e-3,
        "nadam": 2e-3, "radam": 1e-3, "adafactor": 1e-2, "muon": 0.02, "lion": 1e-4, "lamb": 1e-3, "sm3": 0.1,
        "schedule_free_sgd": 1.0, "schedule_free_adamw": 2.5e-3, "lbfgs": 1.0,
        "lars": 10.0, "novograd": 1e-2,
    }  # fmt: skip
    assert [parse(n).weight_decay for n in ("sgd", "adam", "adamw")] == [0.0, 0.0, 0.01]


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(ValidationError, match="needs `momentum`"):
        SGD(lr=0.1, nesterov=True)
    with pytest.raises(ValidationError, match="must be 0 with `nesterov`"):
        SGD(lr=0.1, nesterov=True, momentum=0.9, dampening=0.1)


@pytest.mark.parametrize("betas", [[0.9], [0.9, 1.0], [0.9, 0.99, 0.999], 0.9])
def test_betas_are_two_shares(betas: Any) -> None:
    with pytest.raises(ValidationError, match="betas"):
        parse("adam", betas=betas)


def test_fastest_form_of_the_device() -> None:
    assert kernels(CPU, ("cpu",)) == {"fused": True}
    assert kernels(CPU, ()) == {"foreach": False}
    assert kernels(torch.device("cuda"), ()) == {"foreach": True}
    model = nn.Linear(2, 2)
    found = {name: form(build(parse(name), model)) for name in ("sgd", "adam", "adamw", "rmsprop", "adagrad")}
    assert found == {"sgd": "fused", "adam": "fused", "adamw": "fused", "rmsprop": "loop", "adagrad": "fused"}


def test_set_momentum() -> None:
    model = nn.Linear(2, 2)
    sgd, adam, adagrad = (build(s, model) for s in (SGD(lr=0.1, momentum=0.9), Adam(), AdaGrad()))
    for optimizer in (sgd, adam, adagrad):
        set_momentum(optimizer, 0.85)
    assert sgd.param_groups[0]["momentum"] == 0.85
    assert adam.param_groups[0]["betas"] == (0.85, 0.999)
    assert "momentum" not in adagrad.param_groups[0]
    assert OneCycle().build_momentum(100, 10) is not None


def test_muon_is_torchs_where_torch_has_it() -> None:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("torch has Muon from 2.9 on")
    torch.manual_seed(0)
    ours, theirs = (nn.Linear(16, 48, bias=False) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    mine = build(parse("muon", weight_decay=0.1), nn.Sequential(ours, nn.Linear(48, 2)))
    reference = torch.optim.Muon(theirs.parameters(), lr=0.02, weight_decay=0.1, momentum=0.95)
    for step in range(3):
        gradient = torch.randn(48, 16)
        ours.weight.grad, theirs.weight.grad = gradient.clone(), gradient * 0.05  # its momentum is a mean
        before = theirs.weight.detach().clone()
        mine.step(), reference.step()
        assert (ours.weight - theirs.weight).norm() < 0.02 * (step + 1) * (theirs.weight - before).norm()  # bfloat16


def test_muon_orthogonalizes_matrices_of_one_shape_together_as_it_would_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 6), nn.Conv2d(6, 4, 1), nn.Linear(6, 4)).double()
    alone = copy.deepcopy(model)
    section, head = parse("muon", weight_decay=0.1), nn.Linear(4, 2)
    together = build(section, nn.Sequential(model, head))
    optimizers = [build(section, nn.Sequential(layer, head)) for layer in alone]
    for seed in range(3):
        torch.manual_seed(seed)
        for ours, other in zip(model.parameters(), alone.parameters(), strict=True):
            ours.grad = torch.randn_like(ours)
            other.grad = ours.grad.clone()
        together.step()
        for optimizer in optimizers:
            optimizer.step()
    for ours, other in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours, other)


def test_muon_with_sgd_and_normalized_matrices() -> None:
    """The form of airbench94_muon: before a step the norm of a matrix of n outputs is sqrt(n); SGD has the rest."""
    torch.manual_seed(0)
    model, reference = (nn.Linear(6, 4).double() for _ in range(2))
    reference.load_state_dict(model.state_dict())
    section = parse("muon", lr=0.25, weight_decay=0.0, normalize=True, sgd={"scale": 2.0, "momentum": 0.8})
    optimizer = build(section, nn.Sequential(model, nn.Linear(4, 2)))
    sgd = torch.optim.SGD([reference.bias], lr=0.5, momentum=0.8, nesterov=True)
    for _ in range(3):
        before = model.weight.detach() / model.weight.detach().norm() * 2
        for ours, other in zip(model.parameters(), reference.parameters(), strict=True):
            ours.grad = torch.randn_like(ours)
            other.grad = ours.grad.clone()
        optimizer.step(), sgd.step()
        torch.testing.assert_close(model.bias, reference.bias)
        moved = torch.linalg.svdvals((before - model.weight) / 0.25)
        assert moved.min() > 0.6 and moved.max() < 1.2


def test_muon_makes_matrices_orthogonal() -> None:
    from dltrain.optim.optimizers.impl.muon import orthogonalize

    torch.manual_seed(0)
    for shape in ((32, 128), (128, 32)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape), 5))
        assert values.min() > 0.6 and values.max() < 1.2


def test_muon_takes_kernels_as_matrices_and_leaves_the_rest_to_adamw() -> None:
    model = nn.Sequential()
    for name, module in (("conv", nn.Conv2d(3, 8, 3)), ("norm", nn.BatchNorm2d(8)), ("head", nn.Linear(8, 2))):
        model.add_module(name, module.to(memory_format=torch.channels_last))
    model.head.register_module("out", nn.Linear(2, 2))
    groups = parameter_groups(model, parse("muon"))
    assert {group["matrix"]: len(group["params"]) for group in groups} == {True: 2, False: 6}
    optimizer = build(parse("muon"), model)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    before = model.conv.weight.detach().clone()
    optimizer.step()
    change = (before - model.conv.weight).flatten(1)
    values = torch.linalg.svdvals(change) / 0.02
    assert values.min() > 0.6 and values.max() < 1.2
    assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_adafactor_keeps_rows_and_columns() -> None:
    model = nn.Linear(5, 3, bias=False).double()
    optimizer = build(parse("adafactor"), model)
    rows, columns = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0]).double()
    before = model.weight.detach().clone()
    model.weight.grad = torch.outer(rows, columns)  # its square is of rank one: kept exactly, so that a step is even
    optimizer.step()
    change = before - model.weight
    torch.testing.assert_close(change, torch.full_like(change, change[0, 0].item()))
    state = optimizer.state[model.weight]
    assert sum(v.numel() for key, v in state.items() if key != "step") == 3 + 5


# -- parameter groups


def counts(model: nn.Module, no_decay: list[str], weight_decay: float = 0.1) -> dict[float, int]:
    section = SGD(lr=0.1, weight_decay=weight_decay, no_decay=no_decay)
    return {group["weight_decay"]: len(group["params"]) for group in parameter_groups(model, section)}


def test_resnet18_decays_convolutions_and_the_classifier() -> None:
    from torchvision.models import resnet18

    with torch.device("meta"):
        model = resnet18()
    section = SGD(lr=0.1, weight_decay=0.1, no_decay=["bias", "norm"])
    decay, exempt = parameter_groups(model, section)
    assert sorted(p.ndim for p in decay["params"]) == [2] + [4] * 20
    assert len(exempt["params"]) == 41 and exempt["weight_decay"] == 0.0
    assert counts(model, []) == {0.1: 62}
    assert counts(model, ["norm"]) == {0.1: 22, 0.0: 40}
    assert counts(model, ["fc.*", "layer?.*.downsample.0.weight"]) == {0.1: 57, 0.0: 5}


@pytest.mark.parametrize(
    "name", ["convnext_atto", "resnetv2_50", "evonorm", "vit_tiny_patch16_224", "efficientnet_b0", "frn"]
)
def test_norms_of_timm_are_found(name: str) -> None:
    """Everything that is a matrix or a kernel decays; vectors of norms and biases do not."""
    import timm
    from timm.layers import EvoNorm2dS0, FilterResponseNormTlu2d

    with torch.device("meta"):
        special = {"evonorm": EvoNorm2dS0, "frn": FilterResponseNormTlu2d}
        if name in special:
            model: nn.Module = nn.Sequential(nn.Conv2d(3, 32, 1, bias=False), special[name](32))
        else:
            model = timm.create_model(name)
    section = SGD(lr=0.1, weight_decay=0.1, no_decay=["bias", "norm"])
    decay, _ = parameter_groups(model, section)
    names = {id(p): key for key, p in model.named_parameters()}
    listed = getattr(model, "no_weight_decay", set)()  # tokens and positions
    assert {names[id(p)] for p in decay["params"]} == {
        key for key, p in model.named_parameters() if p.ndim > 1 and not key.endswith("bias") and key not in listed
    }


def test_words_exempt_what_they_say() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.PReLU(4), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(4, 2))
    assert counts(model, ["bias"]) == {0.1: 4, 0.0: 3}
    assert counts(model, ["norm"]) == {0.1: 5, 0.0: 2}
    assert counts(model, ["activation"]) == {0.1: 6, 0.0: 1}
    assert counts(model, ["bias", "norm", "activation"]) == {0.1: 2, 0.0: 5}
    assert counts(model, ["bias", "norm"], weight_decay=0.0) == {0.0: 7}
    assert counts(nn.Linear(2, 2), ["norm", "activation"]) == {0.1: 2}  # a word may match nothing: recipes are shared
    assert counts(nn.MultiheadAttention(4, 1), ["activation"]) == {0.1: 4}


def test_groups_have_a_learning_rate_and_a_decay_of_their_own() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    groups = [{"match": "3.*", "lr": 0.4}, {"match": "0.weight", "lr_scale": 0.5, "weight_decay": 0.0}]
    section = parse("sgd", weight_decay=0.1, no_decay=["bias"], groups=groups)
    names = {id(p): name for name, p in model.named_parameters()}
    found = {
        (group["weight_decay"], group.get("lr_scale", 1.0)): [names[id(p)] for p in group["params"]]
        for group in parameter_groups(model, section)
    }
    assert found == {
        (0.1, 1.0): ["1.weight"], (0.1, 4.0): ["3.weight"], (0.0, 0.5): ["0.weight"], (0.0, 1.0): ["0.bias", "1.bias"],
        (0.0, 4.0): ["3.bias"],
    }  # fmt: skip
    exempt = {"match": "*.bias", "weight_decay": 0.3}  # what a group says goes before `no_decay`
    both = parse("sgd", weight_decay=0.1, no_decay=["bias"], groups=[exempt])
    assert [g["weight_decay"] for g in parameter_groups(model, both)] == [0.1, 0.3]


def test_mistakes_in_groups() -> None:
    with pytest.raises(ValidationError, match="both say how fast"):
        parse("sgd", groups=[{"match": "a", "lr": 0.1, "lr_scale": 2.0}])
    with pytest.raises(ValidationError, match="changes nothing"):
        parse("sgd", groups=[{"match": "a"}])
    with pytest.raises(ValidationError, match="would never learn"):
        parse("sgd", groups=[{"match": "a", "after": 2, "until": 2}])
    with pytest.raises(ConfigError, match=r"`haed\.\*` in `optimizer.groups` matches no"):
        parameter_groups(nn.Linear(2, 2), parse("sgd", groups=[{"match": "haed.*", "lr": 0.1}]))


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    assert counts(model, ["bias"]) == {0.1: 1, 0.0: 1}
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to train"):
        counts(model, [])


def test_shared_parameters_count_once() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    assert counts(nn.Sequential(first, second), ["bias"]) == {0.1: 1, 0.0: 2}


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError) as caught:
        counts(nn.Sequential(nn.Linear(2, 2)), ["0.wieght", "nowhere.*"])
    assert len(caught.value.diagnostics) == 2
    text = str(caught.value)
    assert "`0.wieght` in `optimizer.no_decay` matches no parameter" in text and "did you mean `0.weight`?" in text


@pytest.mark.parametrize("word", ["biases", "norms", "Norm", "activations"])
def test_a_misspelt_word_is_an_error_without_a_model(word: str) -> None:
    with pytest.raises(ValidationError, match="did you mean"):
        SGD(lr=0.1, no_decay=[word])


# -- averages


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def average(**options: Any) -> tuple[nn.Module, Any]:
    model = network()
    section = Average.parse({"name": "ema", "warmup": False, **options})
    assert isinstance(section, EMA)
    return model, section.build(model, 100, 10)


def test_constant_weights_stay_what_they_are() -> None:
    model, ema = average()
    for step in range(5):
        ema.after_step(step)
    assert torch.equal(ema.model[0].weight, model[0].weight)
    assert not ema.model.training and not any(p.requires_grad for p in ema.model.parameters())


@pytest.mark.parametrize("every", [1, 5])
def test_start_fades_with_decay_to_the_power_of_steps(every: int) -> None:
    model, ema = average(decay=0.9, update_every=every)
    model.double(), ema.model.double()
    start = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight.zero_()
    for step in range(20):
        ema.after_step(step)
    torch.testing.assert_close(ema.model[0].weight, start * 0.9**20, rtol=1e-12, atol=0)


def test_average_agrees_with_torch() -> None:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    model, ema = average(decay=0.8)
    reference = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    reference.update_parameters(model)  # torch's first update copies
    for step in range(6):
        with torch.no_grad():
            model[0].weight.add_(torch.randn_like(model[0].weight))
        ema.after_step(step)
        reference.update_parameters(model)
    torch.testing.assert_close(ema.model[0].weight, reference.module[0].weight)


def test_warmup_forgets_the_first_weights() -> None:
    model, ema = average(decay=0.999, warmup=True)
    with torch.no_grad():
        model[0].bias.fill_(1.0)
        ema.model[0].bias.zero_()
    left = 1.0
    for step in range(30):
        ema.after_step(step)
        left *= min(0.999, (1 + step) / (10 + step))
    assert 1 - ema.model[0].bias[0].item() == pytest.approx(left, abs=1e-6) and left < 1e-6


def test_an_average_of_a_short_training_is_not_its_start() -> None:
    section = Average.parse("ema")
    model = network()
    ema = section.build(model, 100, 10)  # type: ignore[attr-defined]
    with torch.no_grad():
        model[0].weight.fill_(5.0), ema.model[0].weight.zero_()
    for step in range(100):
        ema.after_step(step)
    torch.testing.assert_close(ema.model[0].weight, model[0].weight)


def test_buffers_are_copied() -> None:
    model, ema = average()
    model(torch.randn(8, 3)), model(torch.randn(8, 3))
    ema.after_step(0)
    assert torch.equal(ema.model[1].running_var, model[1].running_var)
    assert ema.model[1].num_batches_tracked.item() == 2


def test_average_continues_exactly_and_never_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ema = average(decay=0.9)
    model2, ema2 = average(decay=0.9)
    with torch.no_grad():
        model[0].weight.mul_(3)
    ema.after_step(0)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "average": ema.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    model2.load_state_dict(state["model"]), ema2.load_state_dict(state["average"])
    ema.after_step(1), ema2.after_step(1)
    assert all(torch.equal(a, b) for a, b in zip(ema.model.parameters(), ema2.model.parameters(), strict=True))
    with FakeTensorMode():
        fake, averaged = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(2))
        monkeypatch.setattr("copy.deepcopy", lambda _: averaged)  # which looks at data
        ExponentialAverage(fake, 0.9).after_step(2)


def test_swa_is_the_mean_of_the_last_epochs() -> None:
    from torch.optim.swa_utils import AveragedModel

    model = network()
    section = Average.parse("swa")
    swa, again = (section.build(model, 85, 10) for _ in range(2))  # type: ignore[attr-defined]
    reference = AveragedModel(model, use_buffers=True)
    for step in range(85):
        with torch.no_grad():
            model[0].weight.add_(torch.randn_like(model[0].weight))
        model(torch.randn(8, 3))
        swa.after_step(step), again.after_step(step)
        if step + 1 in (70, 80, 85):  # the epochs' ends after 75 % of 85 steps, and the last step
            reference.update_parameters(model)
        if step == 49:
            assert torch.equal(swa.model[0].weight, model[0].weight)
        if step == 74:  # continued from a checkpoint
            again = section.build(model, 85, 10)  # type: ignore[attr-defined]
            again.load_state_dict(copy.deepcopy(swa.state_dict()))
    for ours, resumed, theirs in zip(
        swa.model.state_dict().values(), again.model.state_dict().values(), reference.module.state_dict().values()
    ):
        assert torch.equal(ours, resumed)
        if ours.is_floating_point():
            torch.testing.assert_close(ours, theirs)


# -- what the papers of the layer-wise and the sparing optimizers promise


def steps(optimizer: torch.optim.Optimizer, weight: nn.Parameter, gradients: list[torch.Tensor]) -> torch.Tensor:
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


def gradients(shape: tuple[int, ...], count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def weight(shape: tuple[int, ...]) -> nn.Parameter:
    return nn.Parameter(torch.full(shape, 0.5, dtype=torch.float64))


def test_lion_moves_every_coordinate_by_lr() -> None:
    w = weight((4, 3))
    optimizer = parse("lion", lr=0.01).build([{"params": [w]}], CPU)
    for gradient in gradients((4, 3)):
        before = w.detach().clone()
        steps(optimizer, w, [gradient])
        torch.testing.assert_close((w - before).abs(), torch.full((4, 3), 0.01, dtype=torch.float64))


def test_lars_does_not_see_the_scale_of_the_loss_and_is_sgd_without_adaptation() -> None:
    found = []
    for scale in (1.0, 100.0):
        w = weight((4, 3))
        optimizer = parse("lars", lr=1.0, momentum=0.0).build([{"params": [w]}], CPU)
        found.append(steps(optimizer, w, [scale * g for g in gradients((4, 3))]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-8)
    w, v = weight((4, 3)), weight((4, 3))
    plain = parse("lars", lr=0.1, always_adapt=False).build([{"params": [w]}], CPU)
    sgd = parse("sgd", lr=0.1, momentum=0.9).build([{"params": [v]}], CPU)
    torch.testing.assert_close(steps(plain, w, gradients((4, 3))), steps(sgd, v, gradients((4, 3))))


def test_lamb_moves_each_tensor_by_its_length_and_is_adam_without_adaptation() -> None:
    w = weight((4, 3))
    optimizer = parse("lamb", lr=0.01, weight_decay=0.0).build([{"params": [w]}], CPU)
    before = w.detach().clone()
    steps(optimizer, w, gradients((4, 3), 1))
    assert (w - before).norm().item() == pytest.approx(0.01 * before.norm().item(), rel=1e-6)
    w, v = weight((4, 3)), weight((4, 3))
    plain = parse("lamb", lr=0.01, weight_decay=0.0, always_adapt=False).build([{"params": [w]}], CPU)
    adam = parse("adam", lr=0.01, eps=1e-6).build([{"params": [v]}], CPU)
    torch.testing.assert_close(steps(plain, w, gradients((4, 3))), steps(adam, v, gradients((4, 3))), rtol=1e-6, atol=0)


def test_novograd_moves_each_tensor_by_lr_at_first() -> None:
    w = weight((4, 3))
    before = w.detach().clone()
    steps(parse("novograd", lr=0.02).build([{"params": [w]}], CPU), w, gradients((4, 3), 1))
    assert (w - before).norm().item() == pytest.approx(0.02, rel=1e-6)


def test_sm3_of_vectors_is_adagrad_and_keeps_rows_and_columns() -> None:
    w, v = weight((5,)), weight((5,))
    sm3 = parse("sm3", lr=0.1, momentum=0.0).build([{"params": [w]}], CPU)
    adagrad = parse("adagrad", lr=0.1, eps=1e-15).build([{"params": [v]}], CPU)
    torch.testing.assert_close(steps(sm3, w, gradients((5,))), steps(adagrad, v, gradients((5,))))
    w = weight((6, 4))
    sm3 = parse("sm3", lr=0.1, momentum=0.0).build([{"params": [w]}], CPU)
    steps(sm3, w, gradients((6, 4)))
    kept = [value for key, value in sm3.state[w].items() if key.startswith("accumulator")]
    assert sum(value.numel() for value in kept) == 6 + 4
    bound = torch.minimum(*(value.reshape(shape) for value, shape in zip(kept, ((6, 1), (1, 4)), strict=True)))
    squares = sum(gradient.square() for gradient in gradients((6, 4)))
    assert (bound >= squares - 1e-12).all()  # type: ignore[union-attr]


# -- layers that learn more slowly, the further they are from the head


def scales(model: nn.Module, **options: Any) -> dict[str, float]:
    """The factor of each parameter's learning rate."""
    section = parse("adamw", lr=0.1, **options)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, section)
    return {names[id(p)]: group.get("lr_scale", 1.0) for group in groups for p in group["params"]}


def test_layer_decay_is_timms_for_timms_networks() -> None:
    import timm
    from timm.optim import param_groups_layer_decay

    for name in ("test_resnet", "test_vit"):
        model = timm.create_model(name)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        expected = {}
        for group in param_groups_layer_decay(model, weight_decay=0.0, layer_decay=0.75):
            for parameter in group["params"]:  # type: ignore[union-attr]
                expected[names[id(parameter)]] = group["lr_scale"]
        assert scales(model, layer_decay=0.75) == pytest.approx(expected)


def test_layer_decay_falls_from_the_head_to_the_stem() -> None:
    from dltrain.data.types import ImageShape
    from dltrain.models import Model
    from dltrain.tasks.outputs import Logits

    model = Model.parse("resnet20").make(ImageShape(3, 32, 32), Logits(10))  # type: ignore[attr-defined]
    found = scales(model, layer_decay=0.5)
    assert found["14.weight"] == found["14.bias"] == 1.0
    assert found["11.convolution1.weight"] == found["11.norm2.bias"] == 0.5
    assert found["0.weight"] == found["1.weight"] == 0.5**10  # the stem's norm belongs to its convolution
    found = scales(model, layer_decay=0.5, groups=[{"match": "14.*", "lr_scale": 3.0}], no_decay=["bias"])
    assert found["14.weight"] == 3.0 and found["11.norm2.bias"] == 0.5
    assert set(scales(model).values()) == {1.0}
