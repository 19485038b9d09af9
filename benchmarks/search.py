"""What a search costs besides its trainings, how good what it finds is, and how much several jobs gain.

    python benchmarks/search.py overhead --root FOLDER
    python benchmarks/search.py quality --problems digits fashion --root FOLDER --seeds 5 --output rows.jsonl
    python benchmarks/search.py jobs --jobs 1 2
    python benchmarks/search.py overhead --tiny

FOLDER holds Fashion-MNIST's files. All of it goes through `dltrain sweep`, each search in a process of its own, and is
read from what the search leaves on the disk.

overhead   From the begin of a trial to the begin of the next, without the time of its steps: loading, building, plan,
           checkpoints, table, events, journal. A trial begins when its environment.json is written. Beside busy
           programs all of that is longer: the processor's time of a whole trial says what it costs then.
quality    The best validation accuracy by wall-clock of every way to search, and of Optuna around a loop by hand
           (search_by_hand.py): the same data, network, optimizer, schedule and space.
jobs       Trials an hour with several workers.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from contest import machine, spread
from defaults import fashion

CLOTHES = 10_000
"""Images of the Fashion-MNIST problem of `quality`."""
VALIDATION = {"digits": 0.2, "fashion": 0.5}
"""The share that validates. The best of hundreds of looks at few images is high by luck."""
SPACE = {
    "optimizer.lr": {"low": 1e-5, "high": 10.0, "log": True},
    "optimizer.momentum": {"low": 0.0, "high": 0.99},
    "optimizer.weight_decay": {"low": 1e-7, "high": 1.0, "log": True},
    "model.dropout": {"low": 0.0, "high": 0.9},
    "loss.label_smoothing": {"low": 0.0, "high": 0.9},
}
"""What `quality` searches: ranges as wide as those of somebody who knows nothing yet, in which few settings are good.
search_by_hand.py states the same."""
WAYS: dict[str, dict[str, Any]] = {
    "random": {"sampler": "random"},
    "random, halving": {"sampler": "random", "pruner": {"name": "successive_halving"}},
    "rounds": {"sampler": "random", "rounds": 3},
    "tpe": {"sampler": "tpe"},
    "gp": {"sampler": "gp"},
    "tpe, halving": {"sampler": "tpe", "pruner": {"name": "successive_halving"}},
}
BY_HAND = {"optuna, by hand": ["--pruner", "none"], "optuna, by hand, halving": ["--pruner", "halving"]}
"""Optuna's TPE around a plain loop, without and with its own pruner."""
EPOCHS, BATCH = 27, 64
HALVED = 3
"""So many times as many settings are tried where halving ends most of them early: all of them train at most a third
of the epochs of the others."""


# -- searches and what they leave


def searched(text: dict[str, Any], folder: Path, *options: str, seconds: float | None = None) -> Path:
    """The directory of a search by `dltrain sweep` of an experiment, in a process of its own. seconds: after which it
    is killed."""
    folder.mkdir(parents=True)
    (folder / "e.yaml").write_text(json.dumps(text))
    command = [sys.executable, "-m", "dltrain", "sweep", str(folder / "e.yaml"), "--runs", str(folder), *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds, env=environment())
    except subprocess.TimeoutExpired:  # what it left is sound
        return next(folder.glob("e/sweep-*"))
    if done.returncode:
        raise SystemExit(done.stderr)
    return next(folder.glob("e/sweep-*"))


def environment() -> dict[str, str]:
    """Of a search: one thread, so that all contestants have as many."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def trials_of(sweep: Path) -> list[Path]:
    """The runs of a search, in the order in which they were begun."""
    return sorted((path.parent for path in sweep.glob("trials/*/environment.json")), key=begun)


def begun(run: Path) -> float:
    """When a run began."""
    return (run / "environment.json").stat().st_mtime


# -- overhead


class Cost(NamedTuple):
    """Milliseconds of a trial: from its begin to the next one's, in its steps, in evaluation."""

    wall: float
    steps: float
    evaluation: float

    @property
    def rest(self) -> float:
        """Everything but the steps and the evaluation."""
        return self.wall - self.steps - self.evaluation


def costs(sweep: Path) -> list[Cost]:
    """Of every trial that another one followed, but the first, in which the process warms up."""
    runs, found = trials_of(sweep), []
    for run, following in pairwise(runs[1:]):
        spent = json.loads((run / "result.json").read_text())["time"]
        steps = sum(spent[part] for part in ("first_step", "data", "compute"))
        found.append(Cost(1000 * (begun(following) - begun(run)), 1000 * steps, 1000 * spent["evaluate"]))
    return found


def overhead(options: argparse.Namespace) -> None:
    """Print a line a problem."""
    space = {"sweep": {"space": {"optimizer.lr": SPACE["optimizer.lr"]}}}
    digits = {"data": "digits", "model": {"name": "mlp", "hidden": [32]}, **space}
    clothes = {"data": {"name": "fashion_mnist", "root": str(options.root)}, "model": "lenet5_modern", **space}
    cases = {f"digits, mlp, {n} epoch{'s' * (n > 1)} of 10 steps": digits | short(n) for n in (1, 5)}
    if options.root is not None:
        cases["Fashion-MNIST, lenet5_modern, 1 epoch of 10 steps"] = clothes | short(1)
    print(f"{options.trials} trials each, milliseconds a trial, median (smallest to largest); {machine('optuna')}")
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, text) in enumerate(cases.items()):
            processor, last = [], Path()
            for count in (2, options.trials + 2):
                before = os.times()
                last = searched(text, Path(folder, f"{number}-{count}"), f"sweep.trials={count}")
                spent = os.times()
                processor.append(spent.children_user + spent.children_system
                                 - before.children_user - before.children_system)  # fmt: skip
            found = costs(last)
            rest = [cost.rest for cost in found]
            print(
                f"{name}: {spread([cost.wall for cost in found], '.0f')}, of which steps "
                f"{statistics.median(cost.steps for cost in found):.0f}, evaluation "
                f"{statistics.median(cost.evaluation for cost in found):.0f}; besides them {spread(rest, '.0f')}, "
                f"{statistics.median(rest) / 10_000:.1%} of a trial of 10 s; of the processor's time, steps included, "
                f"{1000 * (processor[1] - processor[0]) / options.trials:.0f}"
            )


def short(epochs: int) -> dict[str, Any]:
    """The part of an experiment that says how long it trains."""
    return {"training": {"epochs": epochs, "batch_size": 128, "limit_batches": 10}}


# -- quality


class Point(NamedTuple):
    """A validation accuracy, and the seconds since its search was started."""

    seconds: float
    accuracy: float


def problem(name: str, root: Path | None, folder: Path) -> tuple[dict[str, Any], Path]:
    """The data of a problem as a section for dltrain; and, split as dltrain splits it, in a file for the others."""
    from dltrain import Experiment

    if name == "digits":
        splits = Experiment.parse("{data: digits, model: mlp}").load_data()
        images, labels = splits.train.images, splits.train.targets
    elif root is not None:
        raw = fashion(root)
        images, labels = raw.data.numpy()[:CLOTHES], raw.targets.numpy()[:CLOTHES]
    else:
        raise SystemExit("the problem fashion needs --root")
    np.savez(folder / "data.npz", images=images, labels=labels)
    section = {"name": "arrays", "path": str(folder / "data.npz"), "test": 0.0, "validation": VALIDATION[name]}
    splits = Experiment.parse(json.dumps({"data": section, "model": "mlp"})).load_data()
    assert splits.validation is not None
    parts = {"train": splits.train, "validation": splits.validation}
    kinds = {"images": "images", "labels": "targets"}
    found = {f"{part}_{kind}": getattr(of, key) for part, of in parts.items() for kind, key in kinds.items()}
    np.savez(folder / "split.npz", **found)
    return section, folder / "split.npz"


def by_dltrain(name: str, data: dict[str, Any], seed: int, options: argparse.Namespace, folder: Path) -> list[Point]:
    """The accuracies of a search by `dltrain sweep`, in the order in which they were found."""
    text = {
        "seed": seed,
        "data": data,
        "model": {"name": "mlp", "hidden": [64], "dropout": 0.0},
        "loss": {"name": "cross_entropy", "label_smoothing": 0.0},
        "optimizer": {"name": "sgd", "lr": 0.1, "nesterov": False},
        "schedule": {"name": "cosine"},
        "training": {"epochs": EPOCHS, "batch_size": BATCH, "clip_norm": 1.0, "precision": "float32"},
        "sweep": {"trials": trials(name, options), "metric": "validation/accuracy", "space": SPACE, **WAYS[name]},
    }
    started = time.time()
    sweep = searched(text, folder / "search", seconds=options.seconds)
    points = [Point(at - started, accuracy) for run in trials_of(sweep) for at, accuracy in accuracies(run)]
    return sorted(points)


def trials(name: str, options: argparse.Namespace) -> int:
    """How many settings a way to search tries."""
    return int(options.trials) * (HALVED if "halving" in name else 1)


def accuracies(run: Path) -> Iterator[tuple[float, float]]:
    """When each epoch of a run was done, by the clock, and its accuracy: its event files tell both."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    for path in sorted(run.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tag == "validation/accuracy" and value.tensor.float_val:
                    yield event.wall_time, float(value.tensor.float_val[0])


def by_hand(name: str, file: Path, seed: int, options: argparse.Namespace) -> list[Point]:
    """The same of Optuna around a loop by hand."""
    script = Path(__file__).with_name("search_by_hand.py")
    numbers = {"--seed": seed, "--trials": trials(name, options), "--epochs": EPOCHS, "--batch": BATCH}
    command = [sys.executable, str(script), str(file), *BY_HAND[name]]
    command += [str(part) for pair in numbers.items() for part in pair]
    command += ["--seconds", str(options.seconds)] if options.seconds else []
    started = time.time()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    if done.returncode:
        raise SystemExit(done.stderr)
    return [Point(at - started, accuracy) for at, accuracy in map(json.loads, done.stdout.splitlines())]


def best_at(points: list[Point], seconds: float) -> float:
    """The best accuracy that was found by then; that of guessing before the first."""
    return max((point.accuracy for point in points if point.seconds <= seconds), default=0.1)


def time_to(points: list[Point], accuracy: float) -> float | None:
    """When an accuracy was reached."""
    return min((point.seconds for point in points if point.accuracy >= accuracy), default=None)


def quality(options: argparse.Namespace) -> None:
    """Search what is missing, then print a table a problem."""
    rows = []
    if options.output is not None and options.output.is_file():
        rows = [json.loads(line) for line in options.output.read_text().splitlines()]
    done = {(row["problem"], row["way"], row["seed"]) for row in rows}
    for name in options.problems:
        for seed in range(1, options.seeds + 1):
            for way in options.ways:
                if (name, way, seed) in done:
                    continue
                with tempfile.TemporaryDirectory() as temporary:
                    folder = Path(temporary)
                    data, file = problem(name, options.root, folder)
                    points = (
                        by_hand(way, file, seed, options)
                        if way in BY_HAND
                        else by_dltrain(way, data, seed, options, folder)
                    )
                rows.append({"problem": name, "way": way, "seed": seed, "points": points})
                if options.output is not None:
                    with options.output.open("a") as output:
                        output.write(json.dumps(rows[-1]) + "\n")
    print(machine("optuna"))
    for name in options.problems:
        _table(name, [{**row, "points": [Point(*each) for each in row["points"]]} for row in rows], options)


def _table(name: str, rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Times are shares of the time that random search took with the same seed, whose last best is the goal."""
    found = {(row["way"], row["seed"]): row["points"] for row in rows if row["problem"] == name}
    seeds = range(1, options.seeds + 1)
    whole = {seed: found.get(("random", seed), found[options.ways[0], seed])[-1].seconds for seed in seeds}
    epochs = {seed: len(found.get(("random", seed), found[options.ways[0], seed])) for seed in seeds}
    goal = {seed: best_at(found.get(("random", seed), []), math.inf) for seed in seeds}
    print(
        f"{name}: best validation accuracy in % after shares of random search's time, which was "
        f"{spread(list(whole.values()), '.0f')} s, {options.trials} trials of {EPOCHS} epochs, {options.seeds} seeds"
    )
    for way in options.ways:
        columns: dict[str, list[float]] = {}
        for seed in seeds:
            points = found[way, seed]
            for share in (1 / 6, 1 / 3, 1.0):
                columns.setdefault(f"{share:.0%}", []).append(100 * best_at(points, share * whole[seed]))
            columns.setdefault("in the end", []).append(100 * best_at(points, math.inf))
            columns.setdefault("which was at", []).append(points[-1].seconds / whole[seed])
            if (seconds := time_to(points, goal[seed])) is not None:
                columns.setdefault("random's best at", []).append(seconds / whole[seed])
                before = sum(point.seconds < seconds for point in points)
                columns.setdefault("after so much of its epochs", []).append((before + 1) / epochs[seed])
        line = [f"{column} {spread(values)}" for column, values in columns.items()]
        missed = options.seeds - len(columns.get("random's best at", []))
        line += [f"{missed} seeds did not get there"] if missed else []
        reached = next((n for n in range(200) if mean_best(found, way, whole, n / 100) >= mean(goal)), None)
        line += ["the mean of the seeds does not get to random's" if reached is None
                 else f"the mean of the seeds gets to random's at {reached / 100:.2f}"]  # fmt: skip
        print(f"  {way}: " + "; ".join(line))


def mean_best(found: dict[Any, list[Point]], way: str, whole: dict[int, float], share: float) -> float:
    """The best accuracy after a share of random search's time, as a mean over the seeds."""
    return mean({seed: best_at(found[way, seed], share * seconds) for seed, seconds in whole.items()})


def mean(values: dict[int, float]) -> float:
    """Of the seeds."""
    return statistics.fmean(values.values())


# -- jobs


def jobs(options: argparse.Namespace) -> None:
    """Print trials an hour for each number of workers, without the start of the first trial."""
    text = {
        "data": "digits", "model": {"name": "mlp", "hidden": [64]}, "training": {"epochs": options.epochs},
        "sweep": {"space": {"optimizer.lr": SPACE["optimizer.lr"]}, "trials": options.trials},
    }  # fmt: skip
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in options.jobs:
            more = ["--jobs", str(number)] if number > 1 else []
            runs = trials_of(searched(text, Path(folder, str(number)), *more))
            ends = max((run / "result.json").stat().st_mtime for run in runs)
            rates[number] = len(runs) / (ends - begun(runs[0])) * 3600
            ratio = f", {rates[number] / rates[options.jobs[0]]:.2f} times that of {options.jobs[0]}"
            print(f"{number} jobs: {rates[number]:,.0f} trials an hour{ratio}")


def main() -> None:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("overhead")
    command.add_argument("--trials", type=int, default=20)
    command.add_argument("--root", type=Path, help="the folder of Fashion-MNIST; without one, digits alone")
    command.set_defaults(run=overhead, few={"trials": 2})
    command = commands.add_parser("quality")
    command.add_argument("--problems", nargs="+", default=["digits"], choices=["digits", "fashion"])
    command.add_argument("--root", type=Path)
    command.add_argument("--ways", nargs="+", default=[*WAYS, *BY_HAND], choices=[*WAYS, *BY_HAND])
    command.add_argument("--seeds", type=int, default=5)
    command.add_argument("--trials", type=int, default=60)
    command.add_argument("--seconds", type=float, help="after which a search is stopped")
    command.add_argument("--output", type=Path, help="file of results, which later calls continue")
    command.set_defaults(run=quality, few={"trials": 3, "seeds": 1, "ways": ["random", *BY_HAND]})
    command = commands.add_parser("jobs")
    command.add_argument("--jobs", nargs="+", type=int, default=[1, 2])
    command.add_argument("--trials", type=int, default=20)
    command.add_argument("--epochs", type=int, default=20)
    command.set_defaults(run=jobs, few={"jobs": [1], "trials": 2, "epochs": 1})
    for command in commands.choices.values():
        command.add_argument("--tiny", action="store_true", help="as little as shows that this script works")
    options = parser.parse_args()
    for name, value in options.few.items() if options.tiny else ():
        setattr(options, name, value)
    options.run(options)


if __name__ == "__main__":
    main()
