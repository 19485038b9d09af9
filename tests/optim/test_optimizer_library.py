"""The optimizers of pytorch_optimizer: the contract over all that the table keeps, and the table itself."""

from __future__ import annotations

import io
import runpy
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from rationing import some
from torch import nn
from training import arrays_experiment, assert_same_state, built, trained

from dltrain import Experiment
from dltrain.config import ConfigError
from dltrain.optim import Optimizer
from dltrain.optim.impl.groups import parameter_groups
from dltrain.optim.optimizers.library import PREFIX, table

SCRIPT = Path(__file__).parents[2] / "scripts" / "refresh_optimizer_table.py"
NAMES = list(table()["optimizers"])


def parse(name: str, **options: Any) -> Optimizer:
    section = Optimizer.parse({"name": PREFIX + name, **options})
    assert isinstance(section, Optimizer)
    return section


def build(section: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    return section.build(parameter_groups(model, section), torch.device("cpu"))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> float:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(64, 6, generator=draw)
    y = (x.sum(1) > 0).long()
    for step in steps:
        torch.manual_seed(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return float(nn.functional.cross_entropy(model(x), y).detach())


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize("name", some(NAMES, 4))
@pytest.mark.filterwarnings("ignore")
def test_contract(name: str) -> None:
    decay = {"weight_decay": 1e-4, "no_decay": ["bias"]} if table()["optimizers"][name]["decays"] else {}
    best = 1.0
    for lr in (1e-2, 1e-1, 1e-3, 1.0):
        model = network()
        optimizer = build(parse(name, lr=lr, **decay), model)
        before = train(model, optimizer, range(0))
        if (best := min(best, train(model, optimizer, range(40)) / before)) < 0.95:
            break
    assert best < 0.95
    model = network()
    section = parse(name, lr=1e-2, **decay)
    optimizer = build(section, model)
    train(model, optimizer, range(5))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(model, optimizer, range(5, 10))
    file.seek(0)
    state = torch.load(file, weights_only=True)
    again = network()
    again.load_state_dict(state["model"])
    continued = build(section, again)
    continued.load_state_dict(state["optimizer"])
    train(again, continued, range(5, 10))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def moved(section: Optimizer, rates: list[float]) -> list[float]:
    """How far all weights move in each of the steps with these learning rates."""
    model = network()
    optimizer, found = build(section, model), []
    for step, rate in enumerate(rates):
        for group in optimizer.param_groups:
            group["lr"] = rate
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        train(model, optimizer, range(step, step + 1))
        found.append(float((nn.utils.parameters_to_vector(model.parameters()).detach() - before).norm()))
    return found


@pytest.mark.parametrize("name", some(NAMES, 4))
@pytest.mark.filterwarnings("ignore")
def test_the_learning_rate_reaches_every_optimizer_and_0_stops_it(name: str) -> None:
    """Three steps may bring the weights to a norm; then a thousandth of the rate moves them much less."""
    peak = 1.0 if table()["optimizers"][name].get("one_rate") else 0.01  # those with one rate find its size themselves
    section = parse(name, lr=peak)
    fast, slow = (sum(moved(section, [rate] * 12)[3:]) for rate in (peak, peak / 1000))
    assert slow < 0.1 * fast
    still, *steps, none = moved(section, [0.0, *[peak] * 12, 0.0])
    assert still == none == 0 < steps[-1]


def test_what_is_left_out_says_why() -> None:
    for name, reason in (("ftrl", "moves its weights when the learning rate falls"), ("lomo", "needs the model")):
        text = f"data: digits\nmodel: mlp\noptimizer: {{name: pytorch_optimizer/{name}, lr: 0.1}}"
        with pytest.raises(ConfigError) as raised:
            Experiment.parse(text)
        assert f"optimizer `pytorch_optimizer/{name}` is left out: {reason}" in str(raised.value)
        assert ":3:19" in str(raised.value)


@pytest.mark.parametrize("options", [{"groups": [{"match": "*.bias", "lr_scale": 2.0}]}, {"layer_decay": 0.5}], ids=str)
def test_one_rate_for_all_is_one(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="takes one learning rate for all parameters"):
        parse("prodigy", lr=1.0, **options)
    parse("prodigy", lr=1.0, groups=[{"match": "*.bias", "weight_decay": 0.0}])
    parse("adabelief", lr=1.0, **options)


def test_the_table_is_that_of_the_installed_library() -> None:
    if version("pytorch_optimizer") != table()["version"]:
        pytest.skip(f"the table is of pytorch_optimizer {table()['version']}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = runpy.run_path(str(SCRIPT))
    assert set(script["OPTIMIZERS"]) == set(NAMES) | set(table()["left_out"])
    assert all(table()["left_out"].values())
    for name in NAMES:
        assert table()["optimizers"][name]["arguments"] == script["arguments"](name)
        assert table()["optimizers"][name].get("fixed", {}) == script["FIXED"].get(name, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arguments": {"betos": [0.9, 0.99]}}, "has no argument `betos`; did you mean `betas`"),
        ({"arguments": {"betas": 0.9}}, "`betas` must be like its default"),
        ({"arguments": {"fixed_decay": 1}}, "must be like its default, false, not 1"),
        ({"betas": [0.9, 0.99]}, "betas"),
    ],
)
def test_mistakes_are_found_without_the_library(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        parse("lion", lr=1e-3, **options)


def test_more_mistakes() -> None:
    with pytest.raises(ValidationError, match="has no weight decay"):
        parse("sm3", lr=0.1, weight_decay=0.1)
    with pytest.raises(ConfigError, match="refuses its arguments"):
        build(parse("lion", lr=1e-3, arguments={"betas": [0.9, 1.5]}), network())


def test_lion_moves_every_weight_by_lr() -> None:
    model = network()
    before = model[0].weight.detach().clone()
    optimizer = build(parse("lion", lr=0.01, arguments={"betas": [0.8, 0.9]}), model)
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    torch.testing.assert_close((model[0].weight - before).abs(), torch.full_like(before, 0.01))


def test_a_training_with_one_continues_exactly(arrays: Path) -> None:
    optimizer = {"name": "pytorch_optimizer/adabelief", "lr": 0.01, "weight_decay": 0.01, "no_decay": ["norm"],
                 "groups": [{"match": "*.bias", "lr_scale": 0.5}]}  # fmt: skip
    experiment = arrays_experiment(arrays, optimizer=optimizer, training__epochs=2)
    state = trained(experiment, until=3).state_dict()
    again = built(experiment)
    again.load_state_dict(state)
    list(again.run())
    assert_same_state(again.state_dict(), trained(experiment).state_dict())
    assert Experiment.parse(experiment.dump()) == experiment


def test_every_optimizer_has_a_learning_rate_of_its_own() -> None:
    """So its bare name is enough, and a change of the name brings the rate that suits."""
    rates = {name: Optimizer.parse(name).lr for name in Optimizer.all_names()}  # type: ignore[attr-defined]
    assert (rates["sgd"], rates["adamw"], rates["lion"], rates["muon"]) == (0.1, 1e-3, 1e-4, 0.02)
    assert rates["pytorch_optimizer/soap"] == 3e-3, "the library's own"
    assert rates["pytorch_optimizer/accsgd"] == 0.01, "with the library's 1e-3 it hardly learns"
