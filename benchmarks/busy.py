"""How fast is a training beside a busy neighbour? dltrain, the loop that everybody writes, and Lightning, in turn.

    python benchmarks/busy.py --rounds 3
    python benchmarks/busy.py --root DATA --problems lenet resnet20 --rounds 3 --contestants dltrain loop lightning
    python benchmarks/busy.py --tiny

Each training runs twice a round: on a quiet machine, and while another process computes without a pause, as a
compiler would. `spinning` is dltrain with torch's defaults set by hand: as many threads as cores, which spin while they
wait; `probing` is dltrain with `training.threads: probe`. Printed is images/s, the median of the rounds with the
smallest and the largest, and the ratio to `spinning` on a quiet machine. DATA holds CIFAR-10; digits needs none.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from contest import installed, machine, ratio, spread

STATES = ("quiet", "busy")
HERE = Path(__file__).parent
SPINNING = {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2),
            "GOMP_SPINCOUNT": "300000"}  # fmt: skip
"""What torch does by default: as many threads as cores, and 300,000 turns of a loop before one that waits sleeps."""
DECIDED = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MKL_NUM_THREADS")
NEIGHBOUR = "while True: pass"


OURS = ("spinning", "dltrain", "probing")


def environment(contestant: str) -> dict[str, str]:
    """Without settings of the user's shell, but for those that make dltrain as it was."""
    plain = {key: value for key, value in os.environ.items() if key not in DECIDED}
    return plain | {"PYTHONWARNINGS": "ignore"} | (SPINNING if contestant == "spinning" else {})


def threads(contestant: str) -> str:
    """What it says for `training.threads`."""
    return "probe" if contestant == "probing" else "auto"


def speed(problem: str, contestant: str, args: argparse.Namespace) -> float:
    """Images/s of the epochs after the first."""
    runs = "dltrain" if contestant in OURS else contestant
    if problem == "digits":
        return speed_on_digits(contestant, args)
    command = [sys.executable, str(HERE / "throughput.py"), "--model", problem, "--steps", str(args.steps)]
    command += ["--epochs", str(args.epochs), "--precision", "float32", "--only", runs]
    command += ["--threads", threads(contestant)]
    command += ["--tiny"] if args.tiny else ["--root", str(args.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(contestant))
    if done.returncode:
        raise SystemExit(f"{contestant} failed:\n{done.stderr}")
    return statistics.median(json.loads(done.stdout.strip().splitlines()[-1])[1:] or [math.nan])


def speed_on_digits(contestant: str, args: argparse.Namespace) -> float:
    """The same of experiments/digits.yaml."""
    with tempfile.TemporaryDirectory() as runs:
        file = HERE.parent / "experiments" / "digits.yaml"
        changes = [f"training.epochs={args.epochs + 3}", f"training.threads={threads(contestant)}"]
        changes += [*(["training.limit_batches=2"] if args.tiny else [])]
        command = [sys.executable, "-m", "dltrain", "fit", str(file), *changes, "--runs", runs]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(contestant))
        if done.returncode:
            raise SystemExit(done.stderr)
        with next(Path(runs).rglob("metrics.csv")).open() as file_of_epochs:
            rows = list(csv.DictReader(file_of_epochs))[1:]
    return statistics.median(float(row["throughput/images_per_second"]) for row in rows)


def main() -> None:
    """Measure, and print a line for each problem, machine and contestant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--problems", nargs="+", default=["digits", "lenet", "resnet20"])
    parser.add_argument("--contestants", nargs="+", default=["spinning", "probing", "loop", "lightning"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="one round of digits, to see that this script works")
    args = parser.parse_args()
    if args.tiny:
        args.problems, args.contestants, args.rounds, args.epochs = ["digits"], ["spinning", "probing"], 1, 1
    contestants = installed(args.contestants, {"lightning": "lightning"})
    print(machine("lightning"))
    for problem in args.problems:
        names = [name for name in contestants if problem != "digits" or name in OURS]
        found: dict[tuple[str, str], list[float]] = {(name, state): [] for name in names for state in STATES}
        for _ in range(args.rounds):
            for state in STATES:
                neighbour = subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) if state == "busy" else None
                try:
                    for name in names:
                        found[name, state].append(speed(problem, name, args))
                finally:
                    if neighbour is not None:
                        neighbour.kill()
                        neighbour.wait()
        for (name, state), speeds in found.items():
            against = ratio(speeds, found["spinning", "quiet"]) if "spinning" in names else "-"
            line = f"{problem:<9} {state:<6} {name:<10} {spread(speeds, ',.0f'):>30} images/s"
            print(f"{line}, {against} of spinning, quiet")


if __name__ == "__main__":
    main()
