"""Gradients without a backward pass: facts of the estimates, and trainings along them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY
from torch import nn
from training import arrays_experiment, assert_same_state, built, trained

from dltrain import ConfigError, Experiment, build
from dltrain.optim import Gradient
from dltrain.optim.impl.gradients import central_difference, forward_mode, moved
from dltrain.planning.plan import plan
from dltrain.tasks import Loss
from dltrain.tasks.outputs import Logits
from dltrain.testing import GradientContract

ESTIMATED = [name for name in Gradient.all_names() if name != "backpropagation"]


class TestEstimates(GradientContract):
    names = ESTIMATED


def test_differences_have_their_textbook_errors() -> None:
    """e^x at 0 with h = 0.01: the central difference is off by h^2 / 6, the forward difference by h / 2."""
    x = torch.zeros(1, dtype=torch.float64)
    central = central_difference(lambda: float(x.exp()), x, 0, 0.01)
    forward = (moved(lambda: float(x.exp()), x, 0, 0.01) - 1) / 0.01
    assert central - 1 == pytest.approx(1.667e-5, rel=1e-3) and forward - 1 == pytest.approx(5.0e-3, rel=5e-3)
    assert x.item() == 0
    w = torch.tensor([3.0, -2.0], dtype=torch.float64)
    assert central_difference(lambda: float((w**2).sum()), w, 1, 0.5) == pytest.approx(-4.0, rel=1e-12), "exact"


@pytest.mark.parametrize("name", [n for entry in Loss.catalogue for n in entry.names() if entry.views == 1])  # type: ignore[attr-defined]
def test_every_loss_has_a_forward_derivative(name: str) -> None:
    loss = Loss.parse(name)
    if not issubclass(Logits, loss.outputs):  # type: ignore[attr-defined]
        pytest.skip("takes no logits")
    module: nn.Module = loss.build(Logits(3))  # type: ignore[attr-defined]
    outputs, targets = torch.randn(4, 3).double(), torch.tensor([0, 1, 2, 1])
    direction = torch.randn(4, 3).double()
    with forward_mode(), torch.no_grad():
        dual = torch.autograd.forward_ad.make_dual(outputs, direction)
        slopes = torch.autograd.forward_ad.unpack_dual(module(dual, targets)).tangent
    numbers = (module(outputs + 1e-6 * direction, targets) - module(outputs - 1e-6 * direction, targets)) / 2e-6
    torch.testing.assert_close(slopes, numbers, rtol=1e-6, atol=1e-6)


# -- trainings


def changes(name: str, **more: Any) -> dict[str, Any]:
    """Dropout, batch norm, mixed labels, two parts of a batch, momentum, weight decay, an average."""
    return {"gradient": name, "training__epochs": 2, "training__early_stopping": None, **more}


@pytest.fixture
def no_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a backward pass")

    monkeypatch.setattr(torch.autograd, "backward", refuse)
    monkeypatch.setattr(torch.Tensor, "backward", refuse)


@pytest.mark.usefixtures("no_backward")
@pytest.mark.parametrize("name", ESTIMATED)
def test_it_trains_without_a_backward_pass_and_resumes_exactly(name: str, arrays: Path, tmp_path: Path) -> None:
    experiment = arrays_experiment(arrays, **changes(name))
    whole, first = trained(experiment), trained(experiment, until=7)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = built(experiment)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in second.run():
        pass
    assert_same_state(second.state_dict(), whole.state_dict())
    counted = [b for n, b in whole.parts.model.named_buffers() if n.endswith("num_batches_tracked")]
    assert {int(count) for count in counted} == {2 * whole.step}, "once for each part of a batch"


def test_differences_and_derivatives_take_the_same_step(arrays: Path) -> None:
    """MeZO draws the directions of `forward`; dropout and layers see the same in all passes, so both agree."""
    moves = {}
    for name in ("forward", "mezo"):
        gradient = {"name": name, "directions": 3, **({"perturbation": 1e-4} if name == "mezo" else {})}
        once = {"training__steps": 1, "training__epochs": None, "schedule": {"name": "constant"}}
        how = {**changes(name), **once, "gradient": gradient, "model": {"name": "convnet", "widths": [6, 8],
               "dropout": 0.3, "activation": "tanh"}, "training__precision": "float32"}  # fmt: skip
        experiment = arrays_experiment(arrays, **how)
        before = {k: v.clone() for k, v in built(experiment).parts.model.state_dict().items()}
        after = trained(experiment).parts.model.state_dict()
        moves[name] = {key: (after[key] - before[key]).double() for key in after}
    for key, move in moves["forward"].items():
        torch.testing.assert_close(moves["mezo"][key], move, rtol=0.02, atol=float(move.abs().max()) * 0.02 + 1e-7)


def test_frozen_weights_stay(arrays: Path) -> None:
    groups = [{"match": "1.*", "frozen": True}, {"match": "4.*", "after": 1.0}]
    optimizer = {"name": "sgd", "lr": 0.05, "weight_decay": 0.1, "groups": groups}
    experiment = arrays_experiment(arrays, **changes("mezo", optimizer=optimizer, augmentation=[]))
    names = [name for name, _ in built(experiment).parts.model.named_parameters()]

    def learnt(until: int | None) -> set[str]:
        start, end = built(experiment).parts.model.state_dict(), trained(experiment, until).parts.model.state_dict()
        return {name for name in names if not torch.equal(end[name], start[name])}

    waiting = {name for name in names if name.startswith("4.")}
    assert learnt(3) == {name for name in names if not name.startswith(("1.", "4."))} and waiting
    assert learnt(None) == learnt(3) | waiting


TEXT = "data: digits\nmodel: mlp\ngradient: {}\noptimizer: {}\ntraining: {}\n"


@pytest.mark.parametrize(
    ("gradient", "optimizer", "training", "line", "words"),
    [
        ("spsa", "{name: sgd, lr: 0.1, sam: {}}", "{}", 4, "`sam` goes up along the gradient"),
        ("forward", "lbfgs", "{}", 3, "`lbfgs` compares gradients"),
        ("mezo", "sgd", "{precision: float16}", 5, "float16 scales the gradients of a backward pass"),
        ("mezo", "sgd", "{precision: pure_bfloat16}", 5, "moves weights by less than pure_bfloat16 can tell"),
        ("mezo", "sgd", "{graph: true}", 5, "a CUDA graph records a backward pass"),
        ("forward", "sgd", "{compile: true}", 5, "torch compiles no forward-mode derivatives"),
    ],
)
def test_what_needs_a_backward_pass_is_refused_at_its_key(
    gradient: str, optimizer: str, training: str, line: int, words: str
) -> None:
    optimizer = "{name: sgd, lr: 0.1}" if optimizer == "sgd" else optimizer
    with pytest.raises(ConfigError, match=words) as caught:
        Experiment.parse(TEXT.format(gradient, optimizer, training), "e.yaml")
    assert [d.where.line for d in caught.value.diagnostics if d.where is not None] == [line]


def test_an_operation_without_a_forward_derivative_is_refused_at_the_key() -> None:
    text = "data: digits\nmodel: {name: convnet, widths: [4], norm: weight_norm}\ngradient: %s\n"
    experiment = Experiment.parse(text % "forward", "e.yaml")
    for start in (build, plan):
        with pytest.raises(ConfigError, match="forward AD with _weight_norm") as caught:
            start(experiment, "cpu")  # type: ignore[operator]
        assert caught.value.diagnostics[0].where is not None and caught.value.diagnostics[0].where.line == 3
    build(Experiment.parse(text % "mezo", "e.yaml"), "cpu")


def test_the_plan_knows_their_memory() -> None:
    text = "data: digits\nmodel: {name: convnet, widths: [64, 64, 64]}\ntraining: {batch_size: 64}\ngradient: %s"
    memory = {name: plan(Experiment.parse(text % name), "cpu")["memory_bytes"] for name in Gradient.all_names()}
    weights = memory["mezo"]["parameters"]
    assert {name: each["estimate"] for name, each in memory.items() if each["estimate"]} == {"spsa": weights}
    assert memory["mezo"]["activations"] == memory["spsa"]["activations"] == memory["forward"]["activations"] / 2
    widest = 64 * 64 * 8 * 8 * 4  # what the first convolution puts out, and its norm
    assert 2 * widest <= memory["mezo"]["activations"] <= 3 * widest
    assert memory["mezo"]["activations"] < 0.6 * memory["backpropagation"]["activations"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ESTIMATED)
def test_the_experiments_reach_what_they_say(name: str) -> None:
    trainer = built(Experiment.load(REPOSITORY / f"experiments/gradients/{name}.yaml"), 1e9)
    for _ in trainer.run():
        pass
    assert trainer.history[-1]["validation/accuracy"] >= 0.88
