"""What a look of `training.watch` costs, in steps of the same training.

    python benchmarks/watching.py
    python benchmarks/watching.py --tiny

For each network three trainings take turns in one process, a round of some steps each: without looks, with one at every
step, and with one that gives histograms. The cost of a look is what it adds to the median step, over that step.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import median

from contest import machine, spread

from dltrain import Experiment, Trainer, build

NETWORKS = {
    "mlp": "{name: mlp, hidden: [256, 256]}",
    "lenet5_modern": "lenet5_modern",
    "resnet20": "resnet20",
}
EXPERIMENT = """
data: {{name: synthetic, shape: [3, 32, 32]}}
model: {model}
training: {{steps: {steps}, batch_size: {batch}, compile: false, watch: {watch}}}
"""
WAYS = {
    "none": "null",
    "look": "{every: 1, histograms: 0}",
    "histograms": "{every: 1, histograms: 1000000}",
}


def trainer_of(model: str, watch: str, steps: int, batch: int) -> Trainer:
    """A training that reports after every step."""
    trainer = build(Experiment.parse(EXPERIMENT.format(model=model, watch=watch, steps=steps, batch=batch)), "cpu")
    trainer.settings = replace(trainer.settings, progress_seconds=0.0)
    return trainer


def seconds(events: Iterator[object], steps: int) -> float:
    """Of the median of some steps, with what it takes to read the look."""
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        next(events)
        times.append(time.perf_counter() - started)
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="of a round")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    if args.tiny:
        args.rounds, args.steps, args.batch = 2, 2, 8
    print(machine())
    for name, model in NETWORKS.items():
        total = (args.rounds + 1) * args.steps + 1
        trainings = {way: trainer_of(model, watch, total, args.batch) for way, watch in WAYS.items()}
        running = {way: trainer.run() for way, trainer in trainings.items()}
        costs: dict[str, list[float]] = {"look": [], "histograms": []}
        for number in range(args.rounds + 1):
            spent = {way: seconds(events, args.steps) for way, events in running.items()}
            for way, found in costs.items() if number else ():  # the first round warms up
                found.append((spent[way] - spent["none"]) / spent["none"])
        for trainer in trainings.values():
            trainer.close()
        print(f"{name:<14} a look / a step = {spread(costs['look'])}; with histograms {spread(costs['histograms'])}")


if __name__ == "__main__":
    main()
