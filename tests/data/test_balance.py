"""Balanced sampling: how often an epoch draws each class, and which of its examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training import arrays_experiment, assert_same_state, built, trained

from dltrain import ConfigError, EpochReport, Experiment, Trainer, build
from dltrain.data.loading.balance import Balanced, draws_of
from dltrain.data.loading.order import Order
from dltrain.planning.plan import plan

COUNTS = (72, 18, 6)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of which one number tells the class, not for certain: of the last class there are few."""
    draw, labels = np.random.default_rng(0), np.repeat(np.arange(3), [160, 40, 16])
    brightness = draw.normal(90 + 16 * labels, 12)[:, None, None, None]
    images = draw.normal(brightness, 5, (len(labels), 3, 8, 8))
    file = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(file, images=images.clip(0, 255).astype(np.uint8), labels=labels)
    return file


def labels_of(counts: tuple[int, ...] = COUNTS) -> torch.Tensor:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]


@pytest.mark.parametrize(
    ("counts", "power", "expected"),
    [
        ((900, 90, 10), 1.0, (334, 333, 333)),
        ((900, 90, 9, 1), 0.5, (690, 218, 69, 23)),  # 1000 * (30, 9.487, 3, 1) / 43.487
        ((5, 0, 3), 1.0, (4, 0, 4)),
        ((900, 90, 10), 1e-9, (900, 90, 10)),
    ],
)
def test_classes_are_drawn_in_proportion_to_a_power_of_their_counts(
    counts: tuple[int, ...], power: float, expected: tuple[int, ...]
) -> None:
    assert tuple(draws_of(torch.tensor(counts), power).tolist()) == expected


def test_examples_of_a_class_take_turns() -> None:
    """After any number of epochs, each has been drawn as often as the others of its class, but for one time."""
    labels, times = labels_of(), torch.zeros(96, dtype=torch.int64)
    balanced = Balanced(labels, 1.0, seed=0)
    for epoch in range(5):
        drawn = balanced.epoch(epoch)
        assert labels[drawn].bincount().tolist() == [32, 32, 32]
        times += drawn.bincount(minlength=96)
        for label in range(3):
            of_class = times[labels == label]
            assert of_class.sum() == 32 * (epoch + 1) and of_class.max() - of_class.min() <= 1


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int) -> Order:
        return Order(96, 20, seed, Balanced(labels_of(), 0.7, seed))

    whole = order(0).batches(0)
    steps = [next(whole) for _ in range(12)]
    assert all(map(torch.equal, steps[7:], order(0).batches(7)))
    assert not torch.equal(order(1).epoch(0)[0], order(0).epoch(0)[0])
    assert not torch.equal(order(0).epoch(1)[0], order(0).epoch(0)[0])
    first, second = order(0).epoch(0)[0], order(0).epoch(1)[0]
    assert len(first) == 100 and torch.equal(first[96:], second[:4])  # the last batch borrows, as without balance


def reports(experiment: Experiment) -> tuple[Trainer, dict[str, float]]:
    trainer = build(experiment, "cpu")
    rows = [event.metrics for event in trainer.run() if isinstance(event, EpochReport)]
    return trainer, rows[-1]


PLAIN: dict[str, Any] = {
    "augmentation": [], "model": "softmax_regression", "schedule": "constant", "optimizer": {"name": "sgd", "lr": 0.01},
    "training": {"epochs": 15, "batch_size": 12}, "loss": "cross_entropy",
}  # fmt: skip


def test_a_rare_class_is_found_more_often_and_evaluation_stays_as_it_is(path: Path) -> None:
    recalls = []
    for balance in (None, "classes"):
        trainer, _ = reports(arrays_experiment(path, **{**PLAIN, "data.balance": balance, "data.validation": 0.5}))
        assert trainer.parts.validation is not None and trainer.guess is not None
        report = trainer.evaluate(trainer.parts.validation).to_dict()
        assert [each["support"] for each in report["per_class"]] == [64, 16, 6]
        assert trainer.guess.split == ("validation" if balance is None else "train")
        recalls.append(report["per_class"][2]["recall"])
    assert recalls[0] < recalls[1] - 0.3


def test_a_plan_and_the_run_say_it(path: Path) -> None:
    experiment = arrays_experiment(path, **PLAIN, **{"data.balance": 0.5})
    trainer = build(experiment, "cpu")
    told = "an epoch draws 24 to 76 examples of a class; the classes have 10 to 102"
    assert plan(experiment, "cpu")["balance"] == trainer.summary["balance"] == told
    assert trainer.parts.train.targets[trainer.parts.train.examples_of(0)[0]].bincount(minlength=3)[0] < 12


@pytest.mark.parametrize("loader", ["resident", "streaming"])
def test_it_goes_on_bit_for_bit(loader: str, path: Path) -> None:
    changes = {"data.balance": "classes", "data.loader": loader, "training.epochs": 3}
    experiment = arrays_experiment(path, **changes)
    whole, part = trained(experiment), trained(experiment, until=8)
    again = built(experiment, 1e9, part.state_dict())
    list(again.run())
    left, right = again.state_dict(), whole.state_dict()
    for key in ("model", "optimizer", "metrics", "history"):
        assert_same_state(left[key], right[key], key)


def test_what_has_no_use_for_it_is_refused(path: Path) -> None:
    weighted = {"name": "cross_entropy", "class_weights": "balanced"}
    with pytest.raises(ConfigError, match="both make up for rare classes") as caught:
        arrays_experiment(path, **{**PLAIN, "loss": weighted, "data.balance": 0.5})
    assert caught.value.diagnostics[0].where is not None
    arrays_experiment(path, **{**PLAIN, "loss": weighted})
    table = path.with_name("rows.csv")
    table.write_text("a,b\n" + "\n".join(f"{number},{number % 2}" for number in range(40)))
    text = f"data: {{name: table, path: {table}, target: b, balance: classes}}\nmodel: {{name: mlp, hidden: []}}"
    assert Experiment.parse(text).data.balance == "classes"
    with pytest.raises(ConfigError, match="`balance` draws classes, and an example of data `table` has numbers"):
        Experiment.parse(f"{text}\ntask: regression")
