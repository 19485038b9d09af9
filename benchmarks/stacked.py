"""Steps a second of K trainings as one program, against K trainings one after another.

    OMP_NUM_THREADS=1 python benchmarks/stacked.py                  # an MLP on digits, and a LeNet-size CNN
    python benchmarks/stacked.py --device cuda --counts 1 4 16 64
    python benchmarks/stacked.py --clock cpu                        # processor time, beside other busy programs
    python benchmarks/stacked.py --tiny

The trainings differ in their learning rate and their weight decay. Both ways take turns inside one process, an epoch
of the stack and an epoch of each training alone; an epoch is its steps, its evaluation and its report. A ratio is that
of one such turn: median, smallest and largest. How long it takes to build the trainers is told apart.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

from contest import machine, spread

from dltrain import Experiment, Trainer, build
from dltrain.engine.stacked import build_stacked
from dltrain.runs.reports import EpochReport

CASES = {
    "mlp, batch 32": "data: digits\nmodel: {name: mlp, hidden: [64, 64]}",
    "mlp, batch 128": "data: digits\nmodel: {name: mlp, hidden: [64, 64]}",
    "cnn, batch 32": "data: {name: synthetic, examples: 2000, shape: [1, 28, 28]}\nmodel: lenet5_modern",
    "cnn, batch 128": "data: {name: synthetic, examples: 4000, shape: [1, 28, 28]}\nmodel: lenet5_modern",
}
EXPERIMENT = """
{case}
optimizer: {{name: {optimizer}, lr: {lr}, weight_decay: {decay}}}
training: {{epochs: {epochs}, batch_size: {batch}, limit_batches: {limit}, precision: {precision}}}
recorders: []
"""
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def experiments(args: argparse.Namespace, case: str, count: int) -> list[Experiment]:
    """The settings of a search."""
    documents = (
        EXPERIMENT.format(
            case=CASES[case], optimizer=args.optimizer, lr=0.001 * (1 + k), decay=1e-4 * k, epochs=args.rounds + 1,
            batch=case.split()[-1], limit=args.steps, precision=args.precision,
        )
        for k in range(count)
    )  # fmt: skip
    return [Experiment.parse(document, "benchmark") for document in documents]


def epochs(trainer: Trainer) -> Iterator[EpochReport]:
    """The ends of its epochs."""
    return (event for event in trainer.run() if isinstance(event, EpochReport))


def compare(args: argparse.Namespace, case: str, count: int) -> None:
    """Print a line for so many trainings."""
    own, clock = experiments(args, case, count), CLOCKS[args.clock]

    def timed(what: Callable[[], object]) -> float:
        started = clock()
        what()
        return clock() - started

    alone: list[Trainer] = []
    apart = timed(lambda: alone.extend(build(experiment, args.device) for experiment in own))
    started = clock()
    stack = build_stacked(own, args.device)
    building = clock() - started
    with contextlib.closing(stack), contextlib.ExitStack() as opened:
        for trainer in alone:
            opened.enter_context(contextlib.closing(trainer))
        together, each = stack.run(), [epochs(trainer) for trainer in alone]
        seconds = [
            (timed(lambda: next(together)), sum(timed(run.__next__) for run in each)) for _ in range(args.rounds)
        ]
    report(count, stack.trainers[0].settings.steps_per_epoch, seconds, (building, apart))


def report(count: int, steps: int, seconds: Sequence[tuple[float, float]], built: tuple[float, float]) -> None:
    """A row of the table."""
    ratios = [alone / together for together, alone in seconds[1:] or seconds]  # the first one reserves memory
    rates = [statistics.median(count * steps / each for each in way) for way in zip(*seconds, strict=True)]
    print(
        f"| {count} | {rates[0]:,.0f} | {rates[1]:,.0f} | {spread(ratios)} | {built[0]:.2f} s, {built[1]:.2f} s |",
        flush=True,
    )


def main() -> None:
    """Measure, and print a table per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cases", nargs="+", default=list(CASES), help="words in the names of those to measure")
    parser.add_argument("--counts", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--optimizer", default="sgd", choices=["sgd", "adam", "adamw"])
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--rounds", type=int, default=8, help="epochs of each way, the first one not counted")
    parser.add_argument("--steps", type=int, default=30, help="at most, in an epoch")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    if args.tiny:
        args.counts, args.rounds, args.steps, args.cases = [1, 2], 2, 2, ["mlp, batch 32"]
    print(f"{machine()}, {args.optimizer}, {args.precision}, {args.clock} time")
    for case in (case for case in CASES if any(word in case for word in args.cases)):
        print(f"\n| {case}: K | steps/s together | one after another | ratio | built together, apart |")
        print("|---|---|---|---|---|")
        for count in args.counts:
            compare(args, case, count)


if __name__ == "__main__":
    main()
