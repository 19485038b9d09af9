"""Searches that were never run, for the tests of what a search shows: plain values that look like real ones."""

from __future__ import annotations

import math
import random
from typing import Any

from dltrain.search import Range
from dltrain.sweeps.story import Objective, SearchStory, TrialStory

ACCURACY = Objective("validation/accuracy", "max", ".4f")
SPEED = Objective("validation/examples_per_second", "max", ",.0f")

SPACE = {
    "optimizer.lr": Range(low=1e-4, high=1.0, log=True),
    "optimizer.name": Range(choices=["sgd", "adam", "lion"]),
    "optimizer.momentum": Range(low=0.0, high=0.99),
    "model.hidden": Range(choices=[[32], [64], [64, 64], [128, 128, 64]]),
    "data.batch_size": Range(low=16, high=512, log=True),
}


def rounds_of(count: int) -> list[dict[str, Range]]:
    """Each round's ranges, which lie in those of the round before."""
    made = [SPACE]
    for index in range(1, count):
        before = dict(made[-1])
        room = 4 / 2 ** (index + 1)
        before["optimizer.lr"] = Range(low=10 ** (-1.2 - room), high=10 ** (-1.2 + room / 2), log=True)
        before["data.batch_size"] = Range(low=16 * index, high=512 // 2**index, log=True)
        before["optimizer.momentum"] = Range(low=0.3 * index, high=0.99)
        if index > 1:
            before["optimizer.name"] = Range(choices=["sgd", "adam"])
        made.append(before)
    return made


def drawn(ranges: dict[str, Range], chance: random.Random) -> dict[str, Any]:
    """A setting; momentum is set only with sgd."""
    values: dict[str, Any] = {}
    for key, range_ in ranges.items():
        if range_.choices is not None:
            values[key] = chance.choice(range_.choices)
            continue
        low, high = range_.bounds()
        at = math.exp(chance.uniform(math.log(low), math.log(high))) if range_.log else chance.uniform(low, high)
        values[key] = range_.value(round(at) if range_.is_integer else at)
    if values["optimizer.name"] != "sgd":
        del values["optimizer.momentum"]
    return values


def trial(index: int, round_: int, ranges: dict[str, Range], chance: random.Random, epochs: int) -> TrialStory:
    """A trial whose accuracy is a smooth function of its values, with noise; large learning rates fail."""
    values = drawn(ranges, chance)
    miss = math.log10(values["optimizer.lr"]) + 1.3 + 0.4 * (values["optimizer.name"] == "adam")
    height = 0.975 - 0.055 * miss**2 - 0.02 * (values["model.hidden"] == [32]) - 0.00004 * values["data.batch_size"]
    height = max(height + 0.02 * values.get("optimizer.momentum", 0.4) + chance.gauss(0, 0.006), 0.1)
    if miss > 1.0 and chance.random() < 0.6:
        return TrialStory(
            index, values, "failed", round=round_, seconds=0.8, reason="the loss is not a number at step 12"
        )
    curve = [
        (float(e), height * (1 - 0.6 * math.exp(-e / (1 + epochs / 6))) + chance.gauss(0, 0.003))
        for e in range(1, epochs + 1)
    ]
    state: Any = "finished"
    if height < 0.93 and chance.random() < 0.8:
        state, curve = "pruned", curve[: max(epochs // 4, 1)]
    best = max(value for _, value in curve)
    metrics = {"validation/accuracy": best, "validation/loss": 1.5 * (1 - best)}
    metrics["validation/examples_per_second"] = (
        40_000 / (1 + sum(values["model.hidden"]) / 64) * (0.5 + values["data.batch_size"] / 512)
    )
    return TrialStory(index, values, state, metrics, curve, round_, 3.0 + 0.1 * len(curve))


def story(
    trials: int = 100,
    rounds: int = 3,
    epochs: int = 12,
    objectives: tuple[Objective, ...] = (ACCURACY,),
    **changes: Any,
) -> SearchStory:
    """A whole search."""
    chance, ranges = random.Random(5), rounds_of(rounds)
    made = [trial(i, i * rounds // trials, ranges[i * rounds // trials], chance, epochs) for i in range(trials)]
    done = [t for t in made if t.state == "finished"]
    best = sorted(done, key=lambda t: -t.metrics["validation/accuracy"])[:3]
    values: dict[str, Any] = {
        "experiment": "digits",
        "objectives": objectives,
        "space": SPACE,
        "trials": made,
        "best": [t.index for t in best],
        "sampler": "random",
        "sampler_reason": "the space has a conditional key, which other samplers do not take",
        "rounds": ranges,
        "budget": f"{trials} trials of {epochs} epochs",
        "seconds": 4212.0,
        "repeat": [
            "dltrain sweep runs/digits/sweep-001 sweep.trials=200",
            "dltrain fit runs/digits/sweep-001/best.yaml",
        ],
        "facts": {"Seed": "0", "Pruner": "median, from epoch 3", "Device": "cpu, 2 jobs of 1 thread"},
    }
    return SearchStory(**{**values, **changes})
