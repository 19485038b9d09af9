"""Known traps: each warning is given where it applies, and not where it does not."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from dltrain import Experiment
from dltrain.planning.plan import plan


def warned(**sections: Any) -> str:
    """The warnings about an experiment on 1600 synthetic training images."""
    data = {"name": "synthetic", "examples": 2000, "classes": 4, "shape": [1, 8, 8], "validation": 0}
    training = {"epochs": 4, "batch_size": 16, **sections.pop("training", {})}
    document = {"data": {**data, **sections.pop("data", {})}, "model": "mlp", **sections, "training": training}
    return "\n".join(plan(Experiment.parse(yaml.safe_dump(document), "tiny"), "cpu")["warnings"])


ADAMW = {"name": "adamw", "lr": 0.001, "weight_decay": 0.05}
SLOW = {"name": "sgd", "lr": 0.1, "lookahead": {"steps": 5}}
MILESTONES = {"name": "multi_step", "epochs": [2, 9]}


@pytest.mark.parametrize(
    ("text", "fires", "quiet"),
    [
        ("of only 4 images (batch_size 16 / accumulate 4)", {"model": "convnet", "training": {"accumulate": 4}},
         {"model": "convnet", "training": {"accumulate": 2}}),
        ("of only 4 images; group_norm", {"model": "convnet", "training": {"batch_size": 4}},
         {"training": {"batch_size": 4}}),
        ("he_normal is made for relu; tanh",
         {"model": {"name": "mlp", "activation": "tanh", "initialization": "he_normal"}},
         {"model": {"name": "mlp", "activation": "tanh", "initialization": "xavier_normal"}}),
        ("xavier_uniform is made for tanh; relu", {"model": {"name": "mlp", "initialization": "xavier_uniform"}},
         {"model": {"name": "mlp", "initialization": "he_uniform"}}),
        ("selu needs initialization lecun_normal", {"model": {"name": "mlp", "activation": "selu"}},
         {"model": {"name": "mlp", "activation": "selu", "initialization": "lecun_normal"}}),
        ("selu makes batch norm superfluous, is disturbed by dropout",
         {"model": {"name": "convnet", "activation": "selu", "initialization": "lecun_normal", "dropout": 0.5}},
         {"model": {"name": "convnet", "activation": "selu", "initialization": "lecun_normal", "norm": None}}),
        ("weight decay 0.05 also shrinks 7 tensors of norms and biases, such as 1.weight",
         {"model": {"name": "convnet", "norm": {"name": "batch_norm"}}, "optimizer": ADAMW},
         {"model": "convnet", "optimizer": {**ADAMW, "no_decay": ["bias", "norm"]}}),
        ("also shrinks", {"optimizer": ADAMW}, {"optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 5e-4}}),
        ("SGD with batches of 1024 starts at its full learning rate", {"training": {"batch_size": 1024}},
         {"training": {"batch_size": 1024}, "schedule": {"name": "cosine", "warmup": {"epochs": 1}}}),
        ("starts at its full learning rate", {"training": {"batch_size": 1024}}, {}),
        ("convolutions, from", {"model": "vgg16_cifar"}, {"model": "vgg16_cifar", "data": {"size": 32}}),
        ("`schedule.min_lr` 0.1 is not below", {"schedule": {"name": "reduce_on_plateau", "min_lr": 0.1}},
         {"schedule": {"name": "reduce_on_plateau", "min_lr": 0.01}}),
        ("still holds 90% of the weights that the training starts from",
         {"training": {"average": {"name": "ema", "warmup": False}, "steps": 100, "epochs": None}},
         {"training": {"average": "ema", "steps": 100, "epochs": None}}),
        ("still holds", {"training": {"average": {"name": "ema", "warmup": False}, "steps": 100, "epochs": None}},
         {"training": {"average": {"name": "ema", "warmup": False, "decay": 0.95}, "steps": 100, "epochs": None}}),
        ("not once in 9: it stays",
         {"training": {"average": {"name": "ema", "update_every": 10}, "steps": 9, "epochs": None}},
         {"training": {"average": {"name": "ema", "update_every": 10}, "steps": 10, "epochs": None}}),
        ("`swa` would average the weights of 1 epoch end only", {"training": {"average": "swa", "epochs": 2}},
         {"training": {"average": "swa", "epochs": 5}}),
        ("not once in 4", {"optimizer": SLOW, "training": {"steps": 4, "epochs": None}},
         {"optimizer": SLOW, "training": {"steps": 5, "epochs": None}}),
        ("only 1 of 2 drops of the learning rate", {"schedule": MILESTONES},
         {"schedule": MILESTONES, "training": {"epochs": 10}}),
        ("early stopping waits for 4 evaluations, and the training has only 4",
         {"training": {"early_stopping": {"patience": 4, "metric": "train/loss"}}},
         {"training": {"early_stopping": {"patience": 3, "metric": "train/loss"}}}),
        ("the training has only 2",
         {"training": {"early_stopping": {"patience": 3, "metric": "train/loss"}, "evaluate_every": 2}}, {}),
    ],
)  # fmt: skip
def test_a_trap_warns_where_it_applies(text: str, fires: dict[str, Any], quiet: dict[str, Any]) -> None:
    assert text in warned(**fires)
    assert text not in warned(**quiet)


def test_an_odd_batch_on_a_gpu() -> None:
    from dataclasses import replace

    import torch
    from torch import nn

    from dltrain.data.types import ImageShape
    from dltrain.planning.network import Measured
    from dltrain.planning.warnings import Facts, odd_batch

    experiment = Experiment.parse("data: digits\nmodel: mlp\ntraining: {batch_size: 100}")
    model = nn.Linear(1, 1)
    facts = Facts(
        experiment,
        model,
        Measured(model, ImageShape(1, 1, 1)),
        [],
        str(torch.device("cuda", 0)),
        1,
        1,
        lambda step: 1.0,
    )
    assert odd_batch(facts) == "a GPU is slower with 100 images at a time than with a multiple of 8"
    assert odd_batch(replace(facts, device="cpu")) is None
    assert odd_batch(replace(facts, experiment=experiment.override("training.batch_size", 96))) is None


def test_what_is_asked_for_and_not_had_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dltrain.engine.decisions._missing_to_compile", lambda device: "C++ compiler")
    assert "not compiled: asked for" in warned(training={"compile": True})
    assert warned(training={"compile": False}) == ""


def test_a_training_that_does_not_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "of memory besides its data" not in warned()
    monkeypatch.setattr("dltrain.planning.warnings.free_memory", lambda device: 100_000)
    assert "of memory besides its data, and 100.0 kB are free: `training.accumulate` cuts a batch of 16" in warned()
