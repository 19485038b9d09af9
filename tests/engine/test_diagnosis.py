"""A training that learns nothing says so, and what it looks like."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rationing import some

from dltrain import Experiment, build
from dltrain.commands.fit import fit
from dltrain.console.display import Display
from dltrain.engine.diagnosis import diagnose, first_dead
from dltrain.engine.trainer import Trainer
from dltrain.tasks.classification import ClassGuess


def test_guessing_is_the_most_frequent_class_and_the_entropy_of_the_classes() -> None:
    guess = ClassGuess.of("validation", [80, 10, 10])
    assert guess.accuracy == 0.8
    entropy = float(torch.distributions.Categorical(torch.tensor([0.8, 0.1, 0.1])).entropy())
    assert guess.loss == pytest.approx(entropy, abs=1e-6)
    assert guess.is_as_good_as({"validation/accuracy": 0.8})
    assert guess.is_as_good_as({"validation/accuracy": 0.87}), "within two standard deviations (0.04) of chance"
    assert not guess.is_as_good_as({"validation/accuracy": 0.89})
    assert not guess.is_as_good_as({"train/accuracy": 0.1}), "an epoch without validation says nothing"
    assert not ClassGuess.of("validation", [2, 2]).is_as_good_as({"validation/accuracy": 0.5}), "four say nothing"
    assert not ClassGuess.of("train", [7]).is_as_good_as({"train/accuracy": 1.0}), "there is nothing to guess"


def trained(steps: int = 6, **changes: object) -> tuple[Trainer, str | None]:
    """A training of digits, and what is said of its last epoch."""
    experiment = Experiment.parse("data: digits\nmodel: {name: mlp, hidden: [32]}\nschedule: constant\n")
    experiment = experiment.override_all({"training.steps": steps, **changes})
    trainer = build(experiment, "cpu")
    list(trainer.run())
    return trainer, diagnose(trainer, experiment)


def test_dead_units_are_named_with_their_layer_and_the_keys_to_change() -> None:
    experiment = Experiment.parse(
        "data: digits\nmodel: {name: mlp, hidden: [32]}\ntraining: {steps: 3, clip_norm: null}"
    )
    trainer = build(experiment, "cpu")
    with torch.no_grad():
        trainer.parts.model[1].bias.fill_(-1e4)
    list(trainer.run())
    before = {name: value.clone() for name, value in trainer.parts.model.state_dict().items()}
    text = diagnose(trainer, experiment)
    assert text is not None
    assert "100% of the units give every image the same value (dead units)" in text
    assert "In `2`" in text, "the ReLU, not the affine layer whose units still differ"
    for key in ("optimizer.lr", "schedule.warmup", "training.clip_norm", "model.initialization"):
        assert key in text
    after = trainer.parts.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert trainer.parts.model.training


def test_a_loss_far_above_that_of_guessing_is_one_of_steps_too_large() -> None:
    _, text = trained(12, **{"training.clip_norm": None, "optimizer.lr": 50.0})
    assert text is not None
    assert "the steps are too large" in text
    assert "`optimizer.lr` (now 50)" in text


def test_units_that_are_alive_need_more_steps() -> None:
    trainer, text = trained(2, **{"optimizer.lr": 1e-8})
    assert first_dead(trainer) is None
    assert text is not None
    assert "needs more steps or a higher `optimizer.lr` (now 1e-08)" in text


def test_a_training_that_learns_is_left_alone() -> None:
    _, text = trained(40)
    assert text is None


def test_fit_says_it_once_and_at_the_end_and_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "data: digits\nmodel: mlp\noptimizer: {lr: 1.0e-9}\ntraining: {epochs: 4, batch_size: 512}\n"
    code, run = fit(Experiment.parse(text, "stuck"), None, "cpu", Display(), runs=tmp_path)
    said = capsys.readouterr().err
    assert code == 0
    assert said.count("warning: nothing is learnt") == 2
    result = json.loads((run.path / "result.json").read_text())
    assert result["state"] == "finished"
    assert result["why"].startswith("nothing is learnt")


@pytest.mark.parametrize(("optimizer", "clip", "why"), [("sgd", 1.0, "first steps"), ("lbfgs", None, "as it is")])
def test_gradients_are_clipped_unless_the_optimizer_searches_along_them(optimizer: str, clip: float, why: str) -> None:
    experiment = Experiment.parse(f"data: digits\nmodel: softmax_regression\noptimizer: {{name: {optimizer}, lr: 0.1}}")
    trainer = build(experiment, "cpu")
    assert trainer.about["decisions"]["clip_norm"]["value"] == clip
    decision = trainer.about["decisions"]["clip_norm"]
    assert decision["value"] == clip
    assert why in decision["reason"]
    assert Experiment.parse(experiment.dump()) == experiment


@pytest.mark.parametrize("seed", some([1, 2], 2))
def test_a_first_training_learns(seed: int, shared_data: Path) -> None:
    """LeNet with nothing but data and model: unclipped, its units were dead after the second step with seed 2."""
    text = f"seed: {seed}\ndata: {{name: fashion_mnist, root: {shared_data / 'fashion-mnist'}}}\nmodel: lenet5_modern\n"
    trainer = build(Experiment.parse(text + "training: {steps: 60, limit_batches: 30, compile: false}"), "cpu")
    list(trainer.run())
    assert trainer.history[-1]["validation/accuracy"] > 0.5
