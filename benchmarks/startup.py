"""Seconds from the command to the first step of a digits training, and of the commands that should be instant.

    python benchmarks/startup.py --rounds 3            # warm: files are in the system's cache
    python benchmarks/startup.py --rounds 1 --cold     # the installed packages' files are first put out of it (Linux)
    python benchmarks/startup.py --tiny

Contestants, in turn, several rounds:
    torch      `python -c "import torch"`: what nothing that trains can be faster than
    help       `dltrain --help`
    check      `dltrain check experiments/digits.yaml`
    list       `dltrain list`
    fit        `dltrain fit experiments/digits.yaml`, until its first step is done
    lightning  a minimal Lightning script on the same digits, until its first step is done
Each is timed from outside, from before its process starts. A cold start reads what is not mapped by a process that
still runs, so on a machine that is shared it is colder in name than in truth.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from contest import installed, machine, ratio, spread

REPOSITORY = Path(__file__).parent.parent
DIGITS = str(REPOSITORY / "experiments" / "digits.yaml")

FIT = """
import os, sys, time
from dltrain.engine.trainer import Trainer

step = Trainer._train_step

def first(*arguments):
    step(*arguments)
    print(time.time(), flush=True)
    os._exit(0)

Trainer._train_step = first
sys.argv = ["dltrain", "fit", sys.argv[1], "--runs", sys.argv[2], "--device", "cpu"]
from dltrain.__main__ import main
main()
"""
LIGHTNING = """
import os, sys, time
import lightning, torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 10))

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def on_train_batch_end(self, *_):
        print(time.time(), flush=True)
        os._exit(0)

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
loader = DataLoader(TensorDataset(images, torch.tensor(digits.target)), batch_size=64, shuffle=True)
lightning.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=sys.argv[2]).fit(Module(), loader)
"""
COMMANDS = {
    "torch": ["-c", "import torch"], "help": ["-m", "dltrain", "--help"], "check": ["-m", "dltrain", "check", DIGITS],
    "list": ["-m", "dltrain", "list"], "fit": ["-c", FIT, DIGITS], "lightning": ["-c", LIGHTNING, DIGITS],
}  # fmt: skip


def measure(name: str) -> float:
    """Seconds until the command ends, or until the first step that it reports."""
    with tempfile.TemporaryDirectory() as folder:
        extra = [folder] if name in ("fit", "lightning") else []
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        started = time.time()
        done = subprocess.run(
            [sys.executable, *COMMANDS[name], *extra], capture_output=True, text=True, check=False, env=environment
        )
        ended = time.time()
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return (float(done.stdout.split()[-1]) if extra else ended) - started


def put_out_of_cache(folders: Iterable[Path]) -> None:
    """Ask the system to forget the contents of the files in these folders."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contestants", nargs="+", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--cold", action="store_true", help="put the installed files out of the system's cache first")
    parser.add_argument("--tiny", action="store_true", help="one round; --cold then forgets dltrain's own files only")
    args = parser.parse_args()
    folders = [REPOSITORY / "dltrain"]
    if not args.tiny:
        folders.append(Path(sysconfig.get_path("purelib")))
    names = installed(args.contestants, {"lightning": "lightning"})
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(1 if args.tiny else args.rounds):
        for name in names:
            if args.cold:
                put_out_of_cache(folders)
            seconds[name].append(measure(name))
    print(f"{'cold' if args.cold else 'warm'}; {machine('lightning')}")
    for name, values in seconds.items():
        line = f"{name:<12} {spread(values)} s"
        if name != "torch" and "torch" in seconds:
            line += f"   {name} / torch = {ratio(values, seconds['torch'])}"
        print(line)


if __name__ == "__main__":
    main()
