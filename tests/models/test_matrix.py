"""Every network family with every kind of part: each combination builds, trains, and resumes exactly from a file.

The smallest member of a family stands for it. CI draws some of the combinations with a fixed seed, every family among
them; 505 others run with `-m slow`.
"""

from __future__ import annotations

import io
import itertools
import random
from typing import Any

import pytest
import torch
import yaml
from training import assert_same_state, built

from dltrain import Experiment

ACTIVATIONS = ["relu", "mish", "prelu", "frelu", "acon_c"]
NORMS = ["batch_norm", "group_norm", "filter_response_norm", "instance_norm", "layer_norm"]
ATTENTION = [None, "squeeze_excitation", "cbam"]

NATIVE: dict[str, int] = {
    "convnet": 32, "lenet5": 32, "lenet5_modern": 32, "alexnet": 64, "zfnet": 64, "nin": 99, "nin_cifar": 32,
    "vgg11_cifar": 32, "resnet20": 32, "preact_resnet20": 32, "preact_resnet164": 32, "wide_resnet_16_4": 32,
    "resnext29_8x64d": 32, "densenet_40_12": 32, "densenet_bc_100_12": 32, "densenet_small": 64, "googlenet": 64,
    "shufflenet_v1": 64, "nasnet_mobile": 32, "inception_resnet_v1": 32,
}  # fmt: skip
"""Our own networks, with the side of the images: 32, or 64 where less would end in maps of one pixel."""

LIBRARIES: dict[str, int] = {
    "resnet18": 32, "preact_resnet18": 32, "wide_resnet50_2": 32, "resnext50_32x4d": 32, "densenet121": 32,
    "inception_v3": 32, "inception_resnet_v2": 32, "xception": 32, "se_resnet18": 32, "mobilenet_v1": 32,
    "mobilenet_v2": 32, "mobilenet_v3_small": 32, "shufflenet_v2_x0_5": 32, "ghostnet": 32, "efficientnet_b0": 32,
}  # fmt: skip
"""The libraries' networks with norms."""

VECTORS = {"mlp": 32}
"""A network without maps: no attention, and no part that needs maps."""

PLAIN: dict[str, int] = {"alexnet_owt": 64, "squeezenet1_1": 32}
"""The libraries' networks without norms."""

Combination = tuple[str, int, str, str | None, str | None]


def combinations(heavy: bool) -> list[Combination]:
    """Shuffled, and taking turns between the families, so that any beginning has as many of each."""
    rows: list[list[Combination]] = []
    draw = random.Random(0)
    for name, size in {**NATIVE, **LIBRARIES, **PLAIN, **VECTORS}.items():
        norms: list[Any] = [None] if name in PLAIN else NORMS
        own = [(name, size, *parts) for parts in itertools.product(ACTIVATIONS, norms, ATTENTION)]
        if name in VECTORS:
            own = [row for row in own if row[2] != "frelu" and row[3] != "instance_norm" and row[4] is None]
        if heavy == (name in HEAVY):
            rows.append(draw.sample(own, len(own)))
    turns = [[row[turn] for row in rows if turn < len(row)] for turn in range(max(map(len, rows), default=0))]
    return [combination for turn in turns for combination in draw.sample(turn, len(turn))]


HEAVY = {
    "inception_resnet_v1", "inception_v3", "wide_resnet50_2", "inception_resnet_v2", "resnext29_8x64d",
    "resnext50_32x4d", "preact_resnet164", "densenet_bc_100_12", "densenet121", "nasnet_mobile", "alexnet_owt",
    "efficientnet_b0", "ghostnet", "googlenet", "mobilenet_v2", "preact_resnet18", "xception", "densenet_40_12",
    "resnet18", "zfnet", "alexnet",
}  # fmt: skip
"""Slow networks: a faster one of their family runs always, or else their exchanges are counted on the meta device
(test_adaptation) and a shipped experiment trains them."""

SAMPLE = 17
"""One of each family that is not slow."""
FAST = combinations(heavy=False)
SLOW = FAST[SAMPLE : SAMPLE + 465] + combinations(heavy=True)[:40]


def experiment(name: str, size: int, activation: str, norm: str | None, attention: str | None) -> Experiment:
    model: dict[str, Any] = {"name": name, "activation": activation}
    model |= {"norm": norm} if norm else {}
    model |= {"attention": attention} if attention else {}
    document = {
        "data": {"name": "synthetic", "examples": 16, "classes": 3, "shape": [3, size, size], "validation": 0},
        "model": model,
        "optimizer": {"name": "sgd", "lr": 0.001, "momentum": 0.9},
        "training": {"steps": 2, "epochs": None, "batch_size": 2, "precision": "float32", "compile": False},
    }
    return Experiment.parse(yaml.safe_dump(document), "matrix")


def check(combination: Combination) -> None:
    chosen = experiment(*combination)
    whole = built(chosen)
    saved = io.BytesIO()
    for event in whole.run():
        if event.step == 1 and not saved.getbuffer().nbytes:
            torch.save(whole.state_dict(), saved)
    assert whole.history[-1]["train/loss"] < float("inf")
    assert all(parameter.isfinite().all() for parameter in whole.parts.model.parameters())
    saved.seek(0)
    resumed = built(chosen, state=torch.load(saved, weights_only=True))
    for _ in resumed.run():
        pass
    assert_same_state(whole.parts.model.state_dict(), resumed.parts.model.state_dict())
    report = whole.parts.model.adaptation.to_dict()  # type: ignore[operator, union-attr]
    for key, value in zip(("activation", "norm", "attention"), combination[2:], strict=True):
        assert value is None or (report[key]["what"] == value and report[key]["count"] > 0), key


def label(combination: Combination) -> str:
    return "-".join(str(part) for part in combination)


@pytest.mark.usefixtures("one_stem")
@pytest.mark.parametrize("combination", FAST[:SAMPLE], ids=label)
def test_any_network_takes_any_parts(combination: Combination) -> None:
    check(combination)


@pytest.mark.slow
@pytest.mark.parametrize("combination", SLOW, ids=label)
def test_any_network_takes_any_parts_of_many_combinations(combination: Combination) -> None:
    check(combination)


def test_the_sample_has_every_family_and_every_part() -> None:
    names = [set(column) for column in zip(*FAST[:SAMPLE], strict=True)]
    assert names[0] == ({*NATIVE, *LIBRARIES, *PLAIN, *VECTORS} - HEAVY)
    assert names[2] == set(ACTIVATIONS) and names[3] == {*NORMS, None} and names[4] == set(ATTENTION)
    assert len(SLOW) >= 500 and not set(SLOW) & set(FAST[:SAMPLE])
