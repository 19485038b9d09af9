"""Lookahead and SAM around optimizers: against their formulas, at the values that switch them off, and resumed."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training import arrays_experiment, assert_same_state, built, train, trained

from dltrain import ConfigError, Experiment, Run, Trainer
from dltrain.commands.evaluate import evaluate_run
from dltrain.console.display import Display
from dltrain.optim import Optimizer
from dltrain.optim.impl.wrappers import SharpnessAware, SlowWeights
from dltrain.runs import checkpoints
from dltrain.runs.stored import StoredError, require_checkpoint


def weights(trainer: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.parts.model.parameters()])


def options(**wrapper: Any) -> dict[str, Any]:
    return {
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, **wrapper},
        "training__early_stopping": None,
        "training__epochs": 3,
    }


@pytest.mark.parametrize("wrapper", [{"lookahead": {"alpha": 1.0, "steps": 3}}, {"sam": {"rho": 0.0}}], ids=str)
def test_the_value_that_switches_a_wrapper_off(wrapper: dict[str, Any], arrays: Path) -> None:
    plain, wrapped = (trained(arrays_experiment(arrays, **options(**w))) for w in ({}, wrapper))
    assert_same_state(plain.parts.model.state_dict(), wrapped.parts.model.state_dict())
    assert plain.history[-1]["train/loss"] == wrapped.history[-1]["train/loss"]


@pytest.mark.parametrize(
    "wrapper",
    [{"lookahead": {"steps": 4}}, {"sam": {"rho": 0.1}}, {"sam": {"rho": 1.0, "adaptive": True}, "lookahead": {}}],
    ids=str,
)
def test_a_wrapped_optimizer_resumes_exactly(wrapper: dict[str, Any], arrays: Path, tmp_path: Path) -> None:
    whole = trained(arrays_experiment(arrays, **options(**wrapper)))
    assert not torch.equal(weights(whole), weights(trained(arrays_experiment(arrays, **options()))))
    first = trained(arrays_experiment(arrays, **options(**wrapper)), until=7)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = built(arrays_experiment(arrays, **options(**wrapper)))
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in second.run():
        pass
    assert_same_state(second.state_dict(), whole.state_dict())


class Summed:
    """A wrapper that dltrain does not know: it adds up a weight after each step, and moves a bias by the sum."""

    def __init__(self, model: nn.Module) -> None:
        self.weight, self.bias = [p.detach() for p in model.parameters()][-2:]
        self.sum = torch.zeros(())

    def after_step(self, step: int, frozen: Collection[torch.Tensor]) -> None:
        self.sum += self.weight.mean()
        self.bias += 0.1 * self.sum

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"sum": self.sum}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.sum.copy_(state["sum"])


def test_a_new_wrapper_is_saved_checked_and_resumed(arrays: Path, tmp_path: Path) -> None:
    def made(*, wrapped: bool = True) -> Trainer:
        trainer = built(arrays_experiment(arrays, **options()))
        if wrapped:
            trainer.parts.after_step["summed"] = Summed(trainer.parts.model)
        return trainer

    whole, first, path = made(), made(), tmp_path / "state.pt"
    list(whole.run())
    next(event for event in first.run() if event.step == 7)
    checkpoints.save(first.state_dict(), path)
    state = checkpoints.load(path)
    require_checkpoint(state)
    second = made()
    second.load_state_dict(state)
    list(second.run())
    assert_same_state(second.state_dict(), whole.state_dict())
    with pytest.raises(StoredError, match="`summed`: the training has none"):
        made(wrapped=False).load_state_dict(state)
    with pytest.raises(StoredError, match="`summed`: the training has one"):
        made().load_state_dict(made(wrapped=False).state_dict())
    state["summed"]["sum"] = torch.tensor(torch.nan)
    with pytest.raises(StoredError, match=r"summed\.sum"):
        require_checkpoint(state)


def test_slow_weights_follow_the_fast_ones() -> None:
    model = nn.Linear(1, 1, bias=False).double()
    slow = SlowWeights(model, steps=2, alpha=lambda done: 0.5)
    expected = start = model.weight.item()
    for step in range(6):
        with torch.no_grad():
            model.weight += step
        expected += step
        slow.after_step(step)
        if step % 2:
            start += 0.5 * (expected - start)
            expected = start
        assert model.weight.item() == pytest.approx(expected, abs=1e-12)


def test_what_is_evaluated_and_kept_are_the_slow_weights(arrays: Path, tmp_path: Path) -> None:
    """In validation, `best`, `last` and `eval` alike; the training goes on from the fast ones."""
    changes = options(lookahead={"steps": 5}) | {"training__average": None, "training__steps": 23}
    changes |= {"training__epochs": None, "augmentation": []}
    code, run = train(arrays, tmp_path, **changes)
    state = run.checkpoint("last")[1]
    assert code == 0 and state["step"] == 23
    average, slow = state["average"], state["lookahead"]
    assert all(torch.equal(average[name], weight) for name, weight in slow.items())
    assert not any(torch.equal(state["model"][name], weight) for name, weight in slow.items())
    best = max(state["history"], key=lambda row: (row["validation/accuracy"], -row["validation/loss"]))
    for which, row in (("last", state["history"][-1]), ("best", best)):
        measured = evaluate_run([str(run.path)], "validation", which, "cpu", Display(quiet=True))
        assert measured["loss"] == pytest.approx(row["validation/loss"], rel=1e-6)
        assert measured["accuracy"] == row["validation/accuracy"]


def test_a_checkpoint_from_before_that_goes_on(arrays: Path, tmp_path: Path) -> None:
    experiment = arrays_experiment(arrays, **options(lookahead={"steps": 4}) | {"training__average": None})
    whole, first = trained(experiment), trained(experiment, until=7)
    (tmp_path / "checkpoints").mkdir()
    run = Run(tmp_path)
    run.hold({**first.state_dict(), "average": None})
    run.write_held()
    second = built(experiment)
    second.load_state_dict(run.checkpoint("last")[1])
    for _ in second.run():
        pass
    assert_same_state(second.state_dict(), whole.state_dict())


def test_alpha_falls_by_a_power_of_the_steps_done(arrays: Path) -> None:
    wrapper = {"lookahead": {"steps": 3, "alpha": 0.2, "power": 3.0}}
    trainer = built(arrays_experiment(arrays, **options(**wrapper)))
    slow, total = trainer.parts.after_step["lookahead"], trainer.settings.total_steps
    (name, weight), *_ = slow.fast.items()
    for done in range(3, total + 1, 3):
        weight += 1.0
        expected = slow.slow[name] + (1 - 0.8 * (done / total) ** 3)
        slow.after_step(done - 1)
        torch.testing.assert_close(weight, expected)
    assert done > total - 3


@pytest.mark.parametrize("adaptive", [False, True])
def test_sharpness_is_measured_at_a_distance_along_the_gradient(adaptive: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()
    inputs = torch.randn(8, 3, dtype=torch.float64)
    model(inputs).square().mean().backward()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]  # type: ignore[union-attr]
    sharp = SharpnessAware(model, rho=0.3, adaptive=adaptive)
    old = [p.detach().clone() for p in model.parameters()]
    sharp.ascend()
    assert all(p.grad is None for p in model.parameters())
    moves = torch.cat([(p - o).flatten() for p, o in zip(model.parameters(), old, strict=True)]).detach()
    g, w = (torch.cat([t.flatten() for t in tensors]) for tensors in (gradients, old))
    expected = w.abs() ** 2 * g / (w.abs() * g).norm() if adaptive else g / g.norm()
    torch.testing.assert_close(moves, 0.3 * expected, atol=1e-6, rtol=1e-6)
    model(inputs)  # moves the statistics of the batch norm
    sharp.descend()
    assert_same_state(dict(model.state_dict()), before)


def test_sam_finds_a_flatter_step(arrays: Path) -> None:
    """One step of gradient descent uses the gradient at w + rho g / |g|, with the same dropout and augmentation."""
    one = {**options(sam={"rho": 0.2}), "training__steps": 1, "training__epochs": None, "training__average": None,
           "training__clip_norm": None, "training__accumulate": 1, "schedule": {"name": "constant"}}  # fmt: skip
    one["optimizer"] = {"name": "sgd", "lr": 1.0, "sam": {"rho": 0.2}}
    trainer = built(arrays_experiment(arrays, **one))
    other = built(arrays_experiment(arrays, **{**one, "optimizer": {"name": "sgd", "lr": 1.0}}))
    start = weights(trainer)
    for _ in other.run():
        pass
    gradient = start - weights(other)
    moved = built(arrays_experiment(arrays, **{**one, "optimizer": {"name": "sgd", "lr": 1.0}}))
    with torch.no_grad():
        nn.utils.vector_to_parameters(start + 0.2 * gradient / gradient.norm(), moved.parts.model.parameters())
    there = weights(moved)
    for _ in moved.run():
        pass
    for _ in trainer.run():
        pass
    torch.testing.assert_close(start - weights(trainer), there - weights(moved), atol=1e-5, rtol=1e-4)


def test_sam_and_float16_exclude_each_other() -> None:
    text = "data: digits\nmodel: mlp\noptimizer: {name: sgd, lr: 0.1, sam: {}}\ntraining: {precision: float16}"
    with pytest.raises(ConfigError, match="`sam` needs gradients that are not scaled"):
        Experiment.parse(text)


# -- schedule-free


FREE: dict[str, dict[str, Any]] = {
    "schedule_free_sgd": {"lr": 0.5, "momentum": 0.8, "weight_decay": 0.01},
    "schedule_free_adamw": {"lr": 0.02, "betas": [0.8, 0.99], "weight_decay": 0.01},
}


def free(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "optimizer": {"name": name, **FREE[name]}, "schedule": {"name": "constant", "warmup": {"steps": 3}},
        "training__average": None, "training__early_stopping": None, "training__epochs": 3, **changes,
    }  # fmt: skip


def test_schedule_free_gradient_descent_is_the_papers() -> None:
    """y = (1 - b) z + b x; z -= lr g(y); x = mean of z, in float64, on the quadratic |w - target|^2."""
    optimizer = Optimizer.parse({"name": "schedule_free_sgd", "lr": 0.1, "momentum": 0.7})
    model = nn.Linear(3, 1, bias=False).double()
    target = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64)
    built_one = optimizer.build([{"params": list(model.parameters())}], torch.device("cpu"))  # type: ignore[attr-defined]
    average = optimizer.average(model, built_one)  # type: ignore[attr-defined]
    x = z = model.weight.detach().clone()
    for step in range(12):
        y = 0.3 * z + 0.7 * x
        torch.testing.assert_close(model.weight.detach(), y, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(average.model.weight.detach(), x, rtol=1e-9, atol=1e-12)
        z = z - 0.1 * 2 * (y - target)
        x = x + (z - x) / (step + 1)
        model.weight.grad = 2 * (model.weight.detach() - target)
        built_one.step()


@pytest.mark.parametrize("name", FREE)
def test_schedule_free_resumes_exactly_and_evaluates_the_mean(name: str, arrays: Path, tmp_path: Path) -> None:
    whole = trained(arrays_experiment(arrays, **free(name)))
    first = trained(arrays_experiment(arrays, **free(name)), until=7)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = built(arrays_experiment(arrays, **free(name)))
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in second.run():
        pass
    assert_same_state(second.state_dict(), whole.state_dict())
    state = whole.state_dict()
    assert not torch.equal(state["average"]["0.weight"], state["model"]["0.weight"])
    assert whole.history[-1]["validation/accuracy"] > 0.5
    measured = whole.evaluate(whole.parts.validation)  # type: ignore[arg-type]
    assert measured.loss == whole.history[-1]["validation/loss"]


def test_schedule_free_takes_neither_a_schedule_nor_another_average() -> None:
    text = "data: digits\nmodel: mlp\noptimizer: schedule_free_adamw\n"
    with pytest.raises(ConfigError, match="`schedule_free_adamw` needs no schedule, and `cosine` would spoil it"):
        Experiment.parse(text + "schedule: cosine")
    with pytest.raises(ConfigError, match="keeps an average of its own"):
        Experiment.parse(text + "schedule: constant\ntraining: {average: ema}")
    Experiment.parse(text + "schedule: {name: constant, warmup: {epochs: 1}}")


# -- L-BFGS, which evaluates its batch as often as it likes


def test_lbfgs_solves_a_convex_problem_in_a_few_steps_and_resumes_exactly(arrays: Path, tmp_path: Path) -> None:
    model = {
        "model": "softmax_regression", "augmentation": [], "schedule": {"name": "constant"},
        "penalties": [{"name": "l2", "strength": 0.1}], "data__validation": 0.2, "training__epochs": 8,
        "training__accumulate": 2, "training__batch_size": 96, "training__clip_norm": None, "training__average": None,
        "training__early_stopping": None,
    }  # fmt: skip
    lbfgs = {**model, "optimizer": {"name": "lbfgs"}}
    whole = trained(arrays_experiment(arrays, **lbfgs))
    assert whole.settings.steps_per_epoch == 1
    slow = trained(arrays_experiment(arrays, **{**model, "optimizer": {"name": "sgd", "lr": 0.05}}))
    assert whole.history[-1]["norm/gradient"] < 1e-3 < slow.history[-1]["norm/gradient"]
    first = trained(arrays_experiment(arrays, **lbfgs), until=3)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = built(arrays_experiment(arrays, **lbfgs))
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in second.run():
        pass
    assert_same_state(second.state_dict(), whole.state_dict())


def test_lbfgs_takes_gradients_as_they_are() -> None:
    text = "data: digits\nmodel: mlp\noptimizer: lbfgs\ntraining: {clip_norm: 1.0, precision: float16}"
    with pytest.raises(ConfigError) as raised:
        Experiment.parse(text)
    assert "leave `clip_norm` out" in str(raised.value) and "float16 scales it" in str(raised.value)
