"""Trainings that differ only behind the gradient, as one program: each is what it is alone."""

from __future__ import annotations

import contextlib
import copy
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from training import TIMES, assert_same_state, merged, write_folder

from dltrain import Experiment, Trainer, build
from dltrain.data.datasets import Arrays
from dltrain.data.loading.pipeline import Pipeline
from dltrain.data.types import Batch
from dltrain.engine.builder import build_together
from dltrain.engine.decisions import Decision
from dltrain.engine.stacked import (
    NotStackable,
    StackedTraining,
    build_stacked,
    faster_stacked,
    probing,
    training,
    why_not_stacked,
)
from dltrain.runs import checkpoints
from dltrain.runs.reports import EpochReport, NonFiniteError, Progress

MLP: dict[str, Any] = {
    "data": {"name": "arrays", "validation": 0.2},
    "augmentation": [{"name": "random_crop", "padding": 1}],
    "model": {"name": "mlp", "hidden": [12, 8], "dropout": 0.3},
    "loss": {"name": "cross_entropy", "label_smoothing": 0.1},
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3},
    "schedule": {"name": "cosine", "warmup": {"steps": 3}},
    "training": {"epochs": 3, "batch_size": 25},
}
CONVNET: dict[str, Any] = {
    **MLP,
    "augmentation": ["horizontal_flip", "mixup"],
    "model": {"name": "convnet", "widths": [4, 6], "dropout": 0.2},
    "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.05, "no_decay": ["bias", "norm"]},
    "training": {"epochs": 2, "batch_size": 20, "accumulate": 2},
}
FREE: list[dict[str, Any]] = [
    {"optimizer.lr": 0.02, "training.average": {"name": "ema", "decay": 0.8}, "training.log_gradients": True},
    {"penalties": [{"name": "l2", "strength": 0.01}], "optimizer.momentum": 0.5, "optimizer.nesterov": False},
    {"optimizer.lookahead": {"steps": 3, "alpha": 0.5}, "schedule": {"name": "reduce_on_plateau", "patience": 1}},
    {"schedule": {"name": "one_cycle"}, "loss.label_smoothing": 0.0, "training.clip_norm": None},
    {"optimizer": {"name": "adam", "lr": 0.003}, "model.initialization": "he_normal"},
]
"""What each training may have for itself."""


@pytest.fixture
def experiments(arrays: Path) -> Any:
    """Experiments on the arrays: a document, each time with other changes of dotted keys."""

    def make(document: dict[str, Any], *changes: dict[str, Any]) -> list[Experiment]:
        documents = (merged(document, {"data.path": str(arrays), **each}) for each in changes)
        return [Experiment.parse(yaml.safe_dump(each), "tiny") for each in documents]

    return make


@dataclass(frozen=True)
class Wide:
    """A pipeline whose inputs are float64."""

    pipeline: Pipeline

    def train(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        inputs, targets = self.pipeline.train(batch, step)
        return inputs.double(), targets.double() if targets.is_floating_point() else targets

    def evaluate(self, images: Tensor) -> Tensor:
        return self.pipeline.evaluate(images).double()


def widen(trainers: list[Trainer]) -> list[Trainer]:
    """The same trainers in float64, in which rounding is far below what a mistake does."""
    pipeline: Any = Wide(trainers[0].parts.pipeline)
    for trainer in trainers:
        parts = trainer.parts
        parts.model.double()
        for part in parts.after_step.values():
            values = vars(part)
            for name in {"model", "_copy"} & set(values):
                values[name].double()
            if "slow" in values:
                values["fast"] = {name: p.detach() for name, p in parts.model.named_parameters()}
                for slow in values["slow"].values():
                    slow.data = slow.data.double()
        for state in parts.optimizer.state.values():
            for name, value in state.items():
                state[name] = value.double() if name != "step" else value
        trainer.parts = replace(parts, pipeline=pipeline)
    return trainers


def finished(trainer: Trainer) -> Trainer:
    for _ in trainer.run():
        pass
    return trainer


def assert_close(left: Any, right: Any, where: str = "state") -> None:
    """Equal to 1e-12, apart from times."""
    if isinstance(left, Tensor):
        torch.testing.assert_close(left.double(), right.double(), rtol=1e-12, atol=1e-12, msg=where)
    elif isinstance(left, dict):
        assert list(left) == list(right), where
        for key in set(left) - {*TIMES, "epoch_seconds", "about"}:
            assert_close(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), where
        for number, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_close(a, b, f"{where}.{number}")
    elif isinstance(left, float):
        assert left == pytest.approx(right, rel=1e-11, abs=1e-12), where
    else:
        assert left == right, where


# -- each is what it is alone


@pytest.mark.parametrize(
    ("document", "changes"),
    [
        (MLP, [{}, {"optimizer.lr": 0.2}, {"optimizer.weight_decay": 0.1, "optimizer.momentum": 0.5}]),
        (CONVNET, [{}, {"optimizer.lr": 0.002, "loss.label_smoothing": 0.0}, {"training.clip_norm": 0.1}]),
        (MLP, FREE),
    ],
    ids=["mlp", "convnet", "all that is free"],
)
def test_each_of_a_stack_is_what_it_is_alone(experiments: Any, document: Any, changes: Any) -> None:
    all_of_them = experiments(document, *changes)
    training = StackedTraining(widen(build_together(all_of_them, "cpu")))
    events = list(training.run())
    for member, experiment in enumerate(all_of_them):
        alone, together = widen([build(experiment, "cpu")])[0], training.trainers[member]
        reports = [event for event in alone.run() if isinstance(event, EpochReport)]
        assert_close(together.state_dict(), alone.state_dict())
        own = [event[member] for event in events]
        assert [event.metrics["validation/loss"] for event in own] == pytest.approx(
            [report.metrics["validation/loss"] for report in reports], rel=1e-11
        )
        assert [(e.epoch, e.step, e.is_best) for e in own] == [(r.epoch, r.step, r.is_best) for r in reports]
    assert not training.notes


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Data of other kinds, as sections."""
    folder = tmp_path_factory.mktemp("sources")
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(100, 6)).astype("float32")
    np.savez(folder / "numbers.npz", inputs=inputs, targets=inputs[:, :2] + inputs[:, 2:4] ** 2)
    images = write_folder(folder / "images")
    files = {"name": "image_folder", "root": str(images), "size": 8, "test": 0, "loader": "streaming", "workers": 0}
    return {"numbers": {"name": "arrays", "path": str(folder / "numbers.npz"), "validation": 0.2}, "files": files}


OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "what rests": (CONVNET, {"freeze": ["0.weight", "1.*"], "unfreeze_at": {"steps": 7}, "training.accumulate": 1}),
    "views": (
        {**CONVNET, "augmentation": [{"name": "aug_mix", "views": 3}], "loss": {"name": "jsd"}},
        {"evaluation.views": "flip"},
    ),
    "weights": ({**CONVNET, "training": {"steps": 7, "batch_size": 20}}, {"loss.class_weights": "balanced"}),
    "inputs": ({**MLP, "model": "autoencoder", "loss": "mse", "task": "reconstruction", "schedule": "constant"}, {}),
    "numbers": ({**MLP, "data": "numbers", "augmentation": [], "loss": "huber", "task": "regression"}, {}),
    "files": ({**MLP, "data": "files"}, {"training.batch_size": 8}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_kinds_of_learning_are_stacked_too(sources: Any, arrays: Path, name: str) -> None:
    document, changes = OTHERS[name]
    data = sources.get(document["data"]) if isinstance(document["data"], str) else {**MLP["data"], "path": str(arrays)}
    own = [
        Experiment.parse(yaml.safe_dump(merged({**document, "data": data}, {**changes, "optimizer.lr": lr})), "tiny")
        for lr in (0.02, 0.005)
    ]
    training = StackedTraining(widen(build_together(own, "cpu")))
    with contextlib.closing(training):
        list(training.run())
        for experiment, together in zip(own, training.trainers, strict=True):
            with contextlib.closing(widen([build(experiment, "cpu")])[0]) as alone:
                assert_close(together.state_dict(), finished(alone).state_dict())


def test_an_optimizer_that_draws_draws_what_it_would_alone(experiments: Any) -> None:
    def noisy(trainers: list[Trainer]) -> list[Trainer]:
        for trainer in trainers:
            optimizer, step = trainer.parts.optimizer, trainer.parts.optimizer.step

            def draw(step: Any = step, groups: Any = optimizer.param_groups) -> None:
                step()
                for parameter in groups[0]["params"]:
                    parameter.detach().add_(torch.randn_like(parameter), alpha=0.01)

            optimizer.step = draw  # type: ignore[method-assign]
        return widen(trainers)

    own = experiments(MLP, {}, {"optimizer.lr": 0.02})
    training = StackedTraining(noisy(build_together(own, "cpu")))
    list(training.run())
    for experiment, together in zip(own, training.trainers, strict=True):
        assert_close(together.state_dict(), finished(noisy([build(experiment, "cpu")])[0]).state_dict())


# -- what one does leaves the others alone


def test_one_that_leaves_the_numbers_leaves_the_others_bit_for_bit(experiments: Any) -> None:
    tame, wild = (
        build_stacked(experiments(CONVNET, {}, {"optimizer.lr": lr}, {"optimizer.lr": 0.002}), "cpu")
        for lr in (0.005, 1e30)
    )
    usual = list(tame.run())
    events = [next(run := wild.run()), *run]
    assert isinstance(events[0][1], NonFiniteError) and [each[1] for each in events[1:]] == [None]
    for member in (0, 2):
        assert_same_state(wild.trainers[member].state_dict(), tame.trainers[member].state_dict())
        assert all(isinstance(each[member], EpochReport) for each in usual + events)


def test_one_that_stops_early_or_is_stopped_stays_as_it_was(experiments: Any) -> None:
    stopping = {"training.early_stopping": {"patience": 1, "minimum_change": 100.0}}
    training = build_stacked(experiments(CONVNET, *[{"training.epochs": 5, **each} for each in ({}, stopping, {})]))
    states, events = [], []
    for each in training.run():
        events.append(each)
        if len(events) == 3:
            training.stop(2)
        if len(events) in (2, 3):
            states.append(copy.deepcopy(training.trainers[len(events) - 1].state_dict()))
    assert [[event is not None for event in each] for each in events] == [
        [True, True, True], [True, True, True], [True, False, True], [True, False, False], [True, False, False],
    ]  # fmt: skip
    assert_same_state(training.trainers[1].state_dict(), states[0])
    assert_same_state(training.trainers[2].state_dict(), states[1])


# -- saved, and continued


@pytest.mark.parametrize("document", [MLP, CONVNET], ids=["mlp", "convnet"])
def test_each_goes_on_from_its_checkpoint_alone_and_together(experiments: Any, document: Any, tmp_path: Path) -> None:
    own = experiments(document, {}, {"optimizer.lr": 0.02}, {"loss.label_smoothing": 0.0})
    whole = build_stacked(own, "cpu")
    for events in whole.run():
        if events[0].epoch == 1:
            for member, trainer in enumerate(whole.trainers):
                checkpoints.save(trainer.state_dict(), tmp_path / f"{member}.pt")

    def load() -> list[dict[str, Any]]:  # anew each time: a trainer goes on in what it was given
        return [checkpoints.load(tmp_path / f"{member}.pt") for member in range(len(own))]

    together = build_stacked(own, "cpu", load())
    list(together.run())
    one, other = ([finished(restored(*each)) for each in zip(own, load(), strict=True)] for _ in range(2))
    for member, reference in enumerate(whole.trainers):
        assert_same_state(together.trainers[member].state_dict(), reference.state_dict())
        assert_same_state(one[member].state_dict(), other[member].state_dict())
        assert [row["validation/loss"] for row in one[member].history] == pytest.approx(
            [row["validation/loss"] for row in reference.history], rel=1e-3
        )
        checkpoints.save(one[member].state_dict(), tmp_path / "alone.pt")
        assert (tmp_path / f"{member}.pt").stat().st_size < 1.1 * (tmp_path / "alone.pt").stat().st_size


def restored(experiment: Experiment, state: dict[str, Any]) -> Trainer:
    trainer = build(experiment, "cpu", state)
    trainer.load_state_dict(state)
    return trainer


def test_it_is_whole_between_any_two_steps(experiments: Any) -> None:
    own = experiments(CONVNET, {}, {"optimizer.lr": 0.002})
    whole = build_stacked(own, "cpu")
    list(whole.run())
    training = build_stacked(own, "cpu")
    parts = training.run(progress_seconds=0.0)
    for events in parts:
        assert all(isinstance(event, Progress) for event in events)
        if events[0].step == 2:
            break
    parts.close()
    for step in (3, 4):  # interrupted where batches are asked for, each time in a stack of its own
        training = StackedTraining(training.trainers)

        def watch(batches: Iterator[Batch], done: int = step) -> Iterator[Batch]:
            yield next(batches)
            raise KeyboardInterrupt(done)

        with pytest.raises(KeyboardInterrupt):
            list(training.run(watch))
        assert [trainer.step for trainer in training.trainers] == [step, step]
    smaller = StackedTraining(training.trainers[:1])
    list(smaller.run())
    finished(training.trainers[1])
    for trainer, reference in zip(training.trainers, whole.trainers, strict=True):
        rows = [(row["step"], row["train/accuracy"], row["validation/accuracy"]) for row in trainer.history]
        assert rows == [(row["step"], row["train/accuracy"], row["validation/accuracy"]) for row in reference.history]


def test_the_data_is_read_once_and_kept_once(experiments: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, read = [], Arrays.read
    monkeypatch.setattr(Arrays, "read", lambda self: reads.append(1) or read(self))
    own = experiments(MLP, {}, {"optimizer.lr": 0.2}, {"optimizer.lr": 0.3})
    training = build_stacked(own, "cpu")
    assert len(reads) == 1
    assert len({id(trainer.parts.train) for trainer in training.trainers}) == 1
    build_stacked(own, "cpu", splits=own[0].load_data())
    assert len(reads) == 2


# -- what is refused


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model.hidden": [12, 9]}, "differ in `model.hidden`: [12, 8] and [12, 9]"),
        ({"model.dropout": 0.2}, "differ in `model.dropout`"),
        ({"seed": 1}, "differ in `seed`: 0 and 1"),
        ({"training.batch_size": 20}, "differ in `training.batch_size`"),
        ({"training.epochs": 2}, "differ in `training.epochs`"),
        ({"augmentation": []}, "differ in `augmentation`"),
        ({"loss": {"name": "focal"}}, "differ in `loss.name`"),
        ({"optimizer.groups": [{"match": "*", "after": 1}]}, "differ in `optimizer.groups.0.match`"),
        ({"evaluation": {"views": "flip"}}, "differ in `evaluation.views`"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_differs_before_the_gradient_is_refused(experiments: Any, change: Any, reason: str) -> None:
    own = experiments(MLP, {}, change)
    assert reason in (why_not_stacked(own) or "")
    with pytest.raises(NotStackable, match="they differ in"):
        build_stacked(own, "cpu")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"optimizer": {"name": "lbfgs"}, "training.clip_norm": None}, "evaluates a batch as often as it likes"),
        ({"optimizer.sam": {"rho": 0.05}}, "two gradients a step"),
        ({"gradient": "spsa"}, "makes no backward pass"),
        ({"training.compile": True}, "compiles one network"),
        ({"training.precision": "float16"}, "scales each gradient"),
        ({"training.epochs": None, "training.time": "1h"}, "times the steps"),
        ({"training.watch": {}}, "looks into one network"),
        ({"training.threads": "probe"}, "times the steps"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_needs_a_step_of_its_own_is_refused(experiments: Any, change: Any, reason: str) -> None:
    assert reason in (why_not_stacked(experiments({**MLP, "augmentation": []}, change, change)) or "")


class Reads(torch.nn.Module):
    """A layer that looks at its numbers, which torch.func cannot do for several networks at once."""

    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else 2 * x


class Replaces(torch.nn.Module):
    """A layer whose buffer is another tensor after each step."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.seen + x.detach().mean()
        return x


@pytest.mark.parametrize(
    ("layer", "reason"), [(Reads, "cannot compute their networks together"), (Replaces, "computes something else")]
)
def test_a_network_that_would_be_another_one_is_refused(experiments: Any, layer: Any, reason: str) -> None:
    trainers = build_together(experiments(MLP, {}, {"optimizer.lr": 0.2}), "cpu")
    for trainer in trainers:
        trainer.parts.model.append(layer())  # type: ignore[operator]
    before = copy.deepcopy([trainer.parts.model.state_dict() for trainer in trainers])
    with pytest.raises(NotStackable, match=reason):
        StackedTraining(trainers)
    assert_same_state([trainer.parts.model.state_dict() for trainer in trainers], before)


def test_a_network_with_an_objective_of_its_own_is_refused(experiments: Any) -> None:
    model = {**MLP, "model": "variational_autoencoder", "task": "reconstruction", "loss": "mse"}
    with pytest.raises(NotStackable, match="they put out more than tensors"):
        build_stacked(experiments(model, {}, {"optimizer.lr": 0.2}), "cpu")


def test_trainers_that_share_no_batches_or_no_step_are_refused(experiments: Any) -> None:
    own = experiments(MLP, {}, {"optimizer.lr": 0.2})
    with pytest.raises(NotStackable, match="do not share their batches"):
        StackedTraining([build(experiment, "cpu") for experiment in own])
    one, other = build_together(own, "cpu")
    next(iter(one.run()))
    with pytest.raises(NotStackable, match="at different steps"):
        StackedTraining([one, other])


# -- whether it is worth it


def slowed_by(seconds: float, step: Any) -> Any:
    def slow(*arguments: Any) -> None:
        time.sleep(seconds)
        step(*arguments)

    return slow


@pytest.mark.parametrize(
    ("slow", "value"), [(StackedTraining, 1), (Trainer, 3)], ids=["one after another", "all together"]
)
def test_the_probe_takes_the_faster_way(
    experiments: Any, monkeypatch: pytest.MonkeyPatch, slow: Any, value: int
) -> None:
    monkeypatch.setattr(probing, "SECONDS", 0.01)
    monkeypatch.setattr(slow, "_train_step", slowed_by(0.05, slow._train_step))
    decision = faster_stacked(experiments(MLP, {}, {"optimizer.lr": 0.2}, {"optimizer.lr": 1e20}), "cpu")
    assert decision.value == value
    assert re.search(r"the faster now: [\d.]+ s a step of 3 together, [\d.]+ s a step of one", decision.reason)


def test_the_probe_falls_back_with_its_reason(experiments: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert faster_stacked(experiments(MLP, {}, {"seed": 1})) == Decision(1, "they differ in `seed`: 0 and 1")

    def refuse(*_: Any) -> bool:
        raise NotStackable("torch cannot")

    monkeypatch.setattr(training, "draws_alike", refuse)
    assert faster_stacked(experiments(MLP, {}, {"optimizer.lr": 0.2}), "cpu") == Decision(1, "torch cannot")
