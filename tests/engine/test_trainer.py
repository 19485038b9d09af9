"""The loop: what a step does, when an epoch ends, and that nothing in it waits for the device."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from training import EVERYTHING, arrays_experiment, assert_same_state, built, trained

from dltrain import ConfigError, EpochReport, Experiment, Progress, Trainer, build
from dltrain.experiment.training import EarlyStopping
from dltrain.runs import checkpoints
from dltrain.runs.reports import best_epoch, stops_early
from dltrain.tasks import Classification

PLAIN: dict[str, Any] = {
    "augmentation": [], "training__accumulate": 1, "training__clip_norm": None, "training__average": None,
    "training__early_stopping": None, "model": {"name": "mlp", "hidden": [8]}, "schedule": {"name": "constant"},
}  # fmt: skip
"""A training without randomness or normalisation."""


def reports(trainer: Trainer) -> list[EpochReport]:
    return [event for event in trainer.run() if isinstance(event, EpochReport)]


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.parts.model.parameters()])


# -- steps


def test_the_learning_rate_and_momentum_of_each_step_are_the_schedules(arrays: Path) -> None:
    trainer = built(arrays_experiment(arrays, training__epochs=2))
    seen = []
    for event in trainer.run():
        group = trainer.parts.optimizer.param_groups[0]
        seen.append((event.step, group["lr"], group["momentum"]))
    momentum = trainer.parts.momentum
    assert momentum is not None
    expected = [(t + 1, trainer.parts.learning_rate(t), momentum(t)) for t in range(10)]
    assert seen == expected and len({lr for _, lr, _ in seen}) == 10


def test_groups_learn_between_their_epochs(arrays: Path, tmp_path: Path) -> None:
    groups = [{"match": "*.bias", "until": 1}, {"match": "0.weight", "after": 0.5, "lr_scale": 2.0}]
    optimizer = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.1, "groups": groups}
    changes: dict[str, Any] = {"optimizer": optimizer, "training__early_stopping": None, "training__epochs": 2}
    trainer = built(arrays_experiment(arrays, **changes))
    names = [name for name, _ in trainer.parts.model.named_parameters()]
    learn: dict[str, list[int]] = {name: [] for name in names}

    def watch(batches: Any) -> Any:
        for step, batch in enumerate(batches):
            before = [p.detach().clone() for p in trainer.parts.model.parameters()]
            yield batch
            after = trainer.parts.model.parameters()
            for name, old, new in zip(names, before, after, strict=True):
                learn[name] += [] if torch.equal(old, new) else [step]

    for _ in trainer.run(watch):
        pass
    steps, epoch = range(trainer.settings.total_steps - 1), trainer.settings.steps_per_epoch
    for name in names:
        first, end = epoch / 2 if name == "0.weight" else 0, epoch if name.endswith("bias") else len(steps)
        assert learn[name] == [step for step in steps if first <= step < end], name


@pytest.mark.parametrize("parts", [2, 5, 20])
def test_accumulated_gradients_are_those_of_the_whole_batch(parts: int, arrays: Path) -> None:
    whole = trained(arrays_experiment(arrays, **PLAIN))
    accumulated = trained(arrays_experiment(arrays, **{**PLAIN, "training__accumulate": parts}))
    torch.testing.assert_close(weights(accumulated), weights(whole), rtol=1e-4, atol=1e-6)
    assert accumulated.history[-1]["train/loss"] == pytest.approx(whole.history[-1]["train/loss"], rel=1e-5)


def test_accumulation_sees_the_same_augmentation(arrays: Path) -> None:
    """Draws are per position in the whole batch."""
    options = {**PLAIN, "augmentation": EVERYTHING["augmentation"]}
    whole = trained(arrays_experiment(arrays, **options))
    accumulated = trained(arrays_experiment(arrays, **{**options, "training__accumulate": 4}))
    torch.testing.assert_close(weights(accumulated), weights(whole), rtol=1e-3, atol=1e-5)


def test_clipping_bounds_the_step(arrays: Path) -> None:
    """Plain gradient descent: the step is the learning rate times the clipped gradient."""
    options = {**PLAIN, "optimizer": {"name": "sgd", "lr": 0.5}, "training__clip_norm": 0.01, "training__steps": 3,
               "training__epochs": None}  # fmt: skip
    trainer = built(arrays_experiment(arrays, **options))
    before = weights(trainer)
    for event in trainer.run():
        assert (weights(trainer) - before).norm() == pytest.approx(0.5 * 0.01, rel=1e-3)
        before = weights(trainer)
        if isinstance(event, EpochReport):
            assert event.metrics["norm/gradient"] > 0.01  # as it was before clipping


def test_validation_measures_the_averaged_weights(arrays: Path) -> None:
    trainer = trained(arrays_experiment(arrays, training__average={"name": "ema", "decay": 0.99}))
    assert trainer.parts.validation is not None
    measured = trainer.history[-1]["validation/loss"]
    assert trainer.evaluate(trainer.parts.validation).loss == measured
    trainer.parts = replace(trainer.parts, average=None)
    assert trainer.evaluate(trainer.parts.validation).loss != measured


# -- lengths


def test_fractions_of_epochs_and_steps_say_the_length(arrays: Path) -> None:
    """96 examples in batches of 20: five steps an epoch."""
    for changes, steps, epochs in (
        ({"training__epochs": 2.6}, [5, 10, 13], 3),
        ({"training__epochs": 0.01}, [1], 1),
        ({"training__epochs": None, "training__steps": 7}, [5, 7], 2),
        ({"training__epochs": 2, "training__limit_batches": 3}, [3, 6], 2),
    ):
        trainer = built(arrays_experiment(arrays, **PLAIN | changes))
        found = reports(trainer)
        assert [report.step for report in found] == steps
        assert [report.epoch for report in found] == list(range(1, epochs + 1)) and trainer.settings.epochs == epochs
        assert all(report.total_steps == steps[-1] for report in found)


def test_limited_batches_limit_validation_too(arrays: Path) -> None:
    trainer = built(arrays_experiment(arrays, **PLAIN, training__limit_batches=1))
    seen = []
    update = trainer.parts.task.report
    trainer.parts.task.report = lambda: seen.append(update()) or seen[-1]  # type: ignore[method-assign, func-returns-value]
    reports(trainer)
    assert {int(report.counts.sum()) for report in seen} == {20}  # of 24
    each = seen[0].counts.view(3, 3).sum(1).tolist()
    assert all(abs(count - 20 / 3) <= 1 for count in each), "all classes, as many of each as in the split"
    assert any("measures 20 of 24 validation examples" in note for note in map(str, trainer.notes))


def test_evaluation_happens_as_often_as_it_is_asked_for(arrays: Path) -> None:
    trainer = built(arrays_experiment(arrays, **PLAIN, training__evaluate_every=2))
    assert [("validation/loss" in report.metrics) for report in reports(trainer)] == [False, True, False, True, True]


def test_early_stopping_stops_after_its_patience(arrays: Path) -> None:
    stopping = {"patience": 2, "metric": "validation/loss", "minimum_change": 100.0}
    trainer = built(arrays_experiment(arrays, **PLAIN | {"training__early_stopping": stopping}))
    found = reports(trainer)
    assert [report.epoch for report in found] == [1, 2, 3] and trainer.finished
    assert list(trainer.run()) == []


# -- history


def rows(*losses: float | None) -> list[dict[str, float]]:
    return [{} if loss is None else {"validation/loss": loss, "validation/accuracy": 0.5} for loss in losses]


def test_the_best_epoch_is_a_function_of_the_history() -> None:
    history = rows(None, 3, math.nan, 1, 2, 1)
    loss, accuracy = (Classification.watched(f"validation/{name}") for name in ("loss", "accuracy"))
    assert best_epoch(history, loss) == 3
    assert best_epoch(history, accuracy) == 3  # equal accuracies: the lower loss, then the earlier
    assert best_epoch(history, None) == 5
    assert best_epoch([], loss) is best_epoch([], None) is None
    assert best_epoch(rows(math.nan), loss) is None


def test_patience_counts_evaluations_without_improvement() -> None:
    stopping, loss = EarlyStopping(patience=2, minimum_change=0.5), Classification.watched("validation/loss")
    assert not stops_early(rows(3, 2.6), stopping, loss)
    assert stops_early(rows(3, 2.6, 2.7), stopping, loss)
    assert not stops_early(rows(3, 2.6, None, None, 2.4, 2.4), stopping, loss)
    assert stops_early(rows(3, 2.6, math.nan), stopping, loss)
    rising, accuracy = EarlyStopping(patience=1), Classification.watched("validation/accuracy")
    assert not stops_early([{"validation/accuracy": a} for a in (0.1, 0.2)], rising, accuracy)
    assert stops_early([{"validation/accuracy": a} for a in (0.2, 0.2)], rising, accuracy)


# -- reports


def test_progress_is_reported_at_most_a_few_times_a_second(arrays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.004
        return now

    trainer = built(arrays_experiment(arrays, **PLAIN | {"training__epochs": 40}))
    trainer.settings = replace(trainer.settings, progress_seconds=0.25, steps_per_epoch=200)
    monkeypatch.setattr("time.perf_counter", clock)
    times = [now for event in trainer.run() if isinstance(event, Progress)]
    assert len(times) >= 2 and all(b - a >= 0.25 for a, b in pairwise(times))


def test_progress_says_where_training_is(arrays: Path) -> None:
    trainer = built(arrays_experiment(arrays, **PLAIN))
    events = list(trainer.run())
    progress = events[6]
    assert isinstance(progress, Progress)
    assert (progress.epoch, progress.step, progress.total_steps, progress.steps_per_epoch) == (2, 7, 25, 5)
    assert progress.examples_per_second > 0 and 0 <= progress.metrics["accuracy"] <= 1 and progress.lr == 0.05
    report = events[4]
    assert isinstance(report, EpochReport) and report.metrics == trainer.history[0]


class Synchronisations(TorchDispatchMode):
    """Notes every operation whose result a GPU would have to be waited for."""

    names = ("_local_scalar_dense", "item", "nonzero", "masked_select", "_unique2", "is_nonzero", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.__name__.split(".")[0]
        if name in self.names or (name.startswith("index") and _by_mask(args)):
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))


def _by_mask(args: Any) -> bool:
    indices = args[1] if isinstance(args[1], (list, tuple)) else ()
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


WAITLESS = [entry for entry in EVERYTHING["augmentation"] if entry != {"name": "mixup"}]
"""mixup draws one number on the host, and torch's one_hot checks its labels on a CPU (on a GPU it does not)."""


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": {"name": "adamw", "lr": 0.01}, "training__clip_norm": None},
        {"training__average": {"name": "ema", "decay": 0.9, "update_every": 3, "warmup": True}},
    ],
)
def test_no_step_waits_for_the_device(changes: dict[str, Any], arrays: Path) -> None:
    trainer = built(arrays_experiment(arrays, augmentation=WAITLESS, **changes), progress_seconds=1e9)
    for event in trainer.run():  # the first epoch builds what is built once
        assert isinstance(event, EpochReport)
        break
    batches = trainer.parts.train.batches(5)
    with Synchronisations() as seen:
        for step in (5, 6, 7):
            trainer._train_step(next(batches), step)
        assert seen.found == []
        trainer.progress()
    assert seen.found  # it is the report that waits


@pytest.mark.gpu
def test_no_step_waits_for_a_gpu(arrays: Path) -> None:
    trainer = build(arrays_experiment(arrays), "cuda")
    trainer.settings = replace(trainer.settings, progress_seconds=1e9)
    for _ in trainer.run():
        break
    batches = trainer.parts.train.batches(5)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in (5, 6, 7):
            trainer._train_step(next(batches), step)
    finally:
        torch.cuda.set_sync_debug_mode("default")


# -- repetition


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(arrays: Path) -> None:
    first, again, other = (trained(arrays_experiment(arrays, training__epochs=1, seed=seed)) for seed in (4, 4, 5))
    assert_same_state(first.state_dict(), again.state_dict())
    assert not torch.equal(weights(first), weights(other))


def test_a_trainer_needs_no_run(arrays: Path) -> None:
    """From Python: build and iterate, nothing is written."""
    experiment = Experiment.parse(f"data: {{name: arrays, path: {arrays}}}\nmodel: softmax_regression", "plain")
    trainer = build(experiment.override_all({"training.epochs": 1, "training.batch_size": 32}), "cpu")
    assert [type(event).__name__ for event in trainer.run()][-1] == "EpochReport"


# -- starting from other weights


def test_a_training_starts_from_the_weights_that_fit(arrays: Path, tmp_path: Path) -> None:
    first = trained(arrays_experiment(arrays, training__epochs=1))
    checkpoints.save(first.state_dict(), tmp_path / "first.pt")
    wider = {"name": "convnet", "widths": [6, 9], "dropout": 0.3}
    second = build(arrays_experiment(arrays, initialize_from=str(tmp_path / "first.pt"), model=wider), "cpu")
    average, now = first.parts.average.state_dict(), second.parts.model.state_dict()
    same = [name for name in now if now[name].shape == average[name].shape]
    assert 0 < len(same) < len(now) and all(torch.equal(now[name], average[name]) for name in same)
    told = [note for note in map(str, second.notes) if "tensors loaded" in note or "another shape" in note]
    assert told[0] == f"initialized from {tmp_path / 'first.pt'}: {len(same)} of {len(now)} tensors loaded"
    assert all(name in told[1] for name in set(now) - set(same))


@pytest.mark.parametrize("damage", ["missing", "cut", "another model"])
def test_weights_that_cannot_be_had_are_refused(damage: str, arrays: Path, tmp_path: Path) -> None:
    path = tmp_path / "first.pt"
    other = {"name": "mlp", "hidden": [8]} if damage == "another model" else EVERYTHING["model"]
    if damage != "missing":
        checkpoints.save(trained(arrays_experiment(arrays, model=other), until=1).state_dict(), path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ConfigError) as caught:
        build(arrays_experiment(arrays, initialize_from=str(path)), "cpu")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("way", ["a hook before", "a hook after", "a step of its own"])
def test_what_is_put_around_the_step_of_an_optimizer_is_called(way: str, arrays: Path) -> None:
    made = build(arrays_experiment(arrays), "cpu")
    optimizer, calls = made.parts.optimizer, []
    if way == "a hook before":
        optimizer.register_step_pre_hook(lambda *_: calls.append(way))
    elif way == "a hook after":
        optimizer.register_step_post_hook(lambda *_: calls.append(way))
    else:
        own = optimizer.step
        optimizer.step = lambda: (calls.append(way), own())  # type: ignore[method-assign, assignment, misc]
    trainer = Trainer(made.parts, made.settings)
    for _ in trainer.run():
        pass
    assert len(calls) == trainer.step > 0
    expected = trained(arrays_experiment(arrays)).state_dict()
    assert_same_state(trainer.state_dict()["model"], expected["model"])
